/* Preloaded into a program: answers the nth call of one kind with an errno instead of making it, as often as the
 * program itself says by refuse_calls(), which it finds by dlsym. Kinds: "kvm" (ioctls of KVM but KVM_RUN),
 * "kvm_run", "open" (of /dev/kvm and of kernels in tests), "pread", "mmap" (what looks like memory of a guest or
 * of a vCPU), "eventfd", "epoll", "thread", "timer", "tgkill". */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

static const char *kind = "";
static int nth, error;
static atomic_int calls;

static void *real(const char *name)
{
	return dlsym(RTLD_NEXT, name);
}

/* The nth call from now of this kind fails; 0 for none. Returns how many of the last kind there have been. */
int refuse_calls(const char *which, int number, int with)
{
	static char name[32];
	int before = atomic_exchange(&calls, 0);

	strncpy(name, which, sizeof(name) - 1);
	nth = number;
	error = with;
	kind = name;
	return before;
}

static int refused(const char *which)
{
	if (strcmp(kind, which) != 0)
		return 0;
	if (atomic_fetch_add(&calls, 1) + 1 != nth)
		return 0;
	errno = error;
	return 1;
}

int ioctl(int fd, unsigned long request, ...)
{
	va_list list;
	void *argument;

	va_start(list, request);
	argument = va_arg(list, void *);
	va_end(list);
	if (((request >> 8) & 0xff) == KVMIO && refused(request == KVM_RUN ? "kvm_run" : "kvm"))
		return -1;
	return ((int (*)(int, unsigned long, void *))real("ioctl"))(fd, request, argument);
}

static int is_ours(const char *path)
{
	return strcmp(path, "/dev/kvm") == 0 || strstr(path, "vmlet-test-") != NULL;
}

static int open_by(const char *name, const char *path, int flags, int mode)
{
	if (is_ours(path) && refused("open"))
		return -1;
	return ((int (*)(const char *, int, int))real(name))(path, flags, mode);
}

int open(const char *path, int flags, ...)
{
	va_list list;

	va_start(list, flags);
	int mode = va_arg(list, int);
	va_end(list);
	return open_by("open", path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
	va_list list;

	va_start(list, flags);
	int mode = va_arg(list, int);
	va_end(list);
	return open_by("open64", path, flags, mode);
}

ssize_t pread(int fd, void *to, size_t length, off_t at)
{
	if (refused("pread"))
		return -1;
	return ((ssize_t (*)(int, void *, size_t, off_t))real("pread"))(fd, to, length, at);
}

void *mmap(void *where, size_t length, int protection, int flags, int fd, off_t at)
{
	const int guest = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;

	if (protection == (PROT_READ | PROT_WRITE) && (flags == guest || flags == MAP_SHARED) && refused("mmap"))
		return MAP_FAILED;
	return ((void *(*)(void *, size_t, int, int, int, off_t))real("mmap"))(where, length, protection, flags, fd, at);
}

int eventfd(unsigned int value, int flags)
{
	if (refused("eventfd"))
		return -1;
	return ((int (*)(unsigned int, int))real("eventfd"))(value, flags);
}

int epoll_create1(int flags)
{
	if (refused("epoll"))
		return -1;
	return ((int (*)(int))real("epoll_create1"))(flags);
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *argument)
{
	if (refused("thread"))
		return error;
	return ((int (*)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *))real("pthread_create"))(
		thread, attributes, start, argument);
}

int tgkill(pid_t group, pid_t thread, int signal)
{
	if (refused("tgkill"))
		return -1;
	return ((int (*)(pid_t, pid_t, int))real("tgkill"))(group, thread, signal);
}

long syscall(long number, ...)
{
	long a[6];
	va_list list;

	va_start(list, number);
	for (int i = 0; i < 6; i++)
		a[i] = va_arg(list, long);
	va_end(list);
	if (number == SYS_timer_create && refused("timer"))
		return -1;
	return ((long (*)(long, ...))real("syscall"))(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
