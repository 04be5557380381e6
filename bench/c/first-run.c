/* Preloaded into a monitor: ends the process at its first KVM_RUN, so that the time from its
 * start to there is the process's whole life. Works for any program that calls libc's ioctl,
 * also one that finds it by dlsym.
 *   FIRST_RUN_TRACE=FILE  one line an event on the way there: CLOCK_MONOTONIC ns, a name
 *   FIRST_RUN_SMAPS=FILE  /proc/self/smaps at that moment
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static char trace[1 << 16];
static size_t traced;

static void event(const char *name)
{
	struct timespec t;

	if (traced > sizeof(trace) - 512)
		return;
	clock_gettime(CLOCK_MONOTONIC, &t);
	traced += (size_t)snprintf(trace + traced, 512, "%lld %s\n", (long long)t.tv_sec * 1000000000LL + t.tv_nsec, name);
}

static void *real(const char *name)
{
	return dlsym(RTLD_NEXT, name);
}

__attribute__((constructor)) static void loaded(void)
{
	event("loaded");
}

static void copy_smaps(const char *path)
{
	static char buffer[1 << 16];
	int (*open_file)(const char *, int, ...) = (int (*)(const char *, int, ...))real("open");
	int from = open_file("/proc/self/smaps", O_RDONLY), to = open_file(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
	ssize_t count;

	while ((count = read(from, buffer, sizeof(buffer))) > 0)
		if (write(to, buffer, (size_t)count) != count)
			_exit(1);
}

static void end(void)
{
	const char *trace_path = getenv("FIRST_RUN_TRACE"), *smaps_path = getenv("FIRST_RUN_SMAPS");

	event("KVM_RUN");
	if (smaps_path)
		copy_smaps(smaps_path);
	if (trace_path) {
		int (*open_file)(const char *, int, ...) = (int (*)(const char *, int, ...))real("open");
		int fd = open_file(trace_path, O_WRONLY | O_CREAT | O_TRUNC, 0644);

		if (write(fd, trace, traced) != (ssize_t)traced)
			_exit(1);
	}
	_exit(0);
}

int open(const char *path, int flags, ...)
{
	static int (*next)(const char *, int, ...);
	va_list arguments;

	va_start(arguments, flags);
	mode_t mode = va_arg(arguments, mode_t);

	va_end(arguments);
	event(path);
	if (!next)
		next = (int (*)(const char *, int, ...))real("open");
	return next(path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
	static int (*next)(const char *, int, ...);
	va_list arguments;

	va_start(arguments, flags);
	mode_t mode = va_arg(arguments, mode_t);

	va_end(arguments);
	event(path);
	if (!next)
		next = (int (*)(const char *, int, ...))real("open64");
	return next(path, flags, mode);
}

int ioctl(int fd, unsigned long request, ...)
{
	static int (*next)(int, unsigned long, ...);
	va_list arguments;

	va_start(arguments, request);
	void *argument = va_arg(arguments, void *);

	va_end(arguments);
	if (request == KVM_RUN)
		end();
	if (request == KVM_CREATE_VM)
		event("KVM_CREATE_VM");
	if (!next)
		next = (int (*)(int, unsigned long, ...))real("ioctl");
	return next(fd, request, argument);
}
