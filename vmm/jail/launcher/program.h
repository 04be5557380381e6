/* What is started: a program of the processor's, or one of vmlet's, which is a script for Node beside the launcher. */
#ifndef VMLET_LAUNCHER_PROGRAM_H
#define VMLET_LAUNCHER_PROGRAM_H

#include <signal.h>
#include <time.h>

#include "elf.h"

#define JAIL_FOLDER "/vmlet"
#define PROGRAM_FOLDER JAIL_FOLDER "/bin"
#define BUNDLE_FOLDER JAIL_FOLDER "/dist"
/* Where vmm/sys/koffi.ts looks for it: in this folder, beside the bundle or further up. */
#define KOFFI_FOLDER "node_modules/@koromix/koffi-linux-x64"

struct program {
	/* Its file on this host, without links. */
	const char *path;
	/* Of one of vmlet's: Node, the bundle's folder, the native module and its place in KOFFI_FOLDER; otherwise NULL. */
	const char *node;
	const char *bundle;
	const char *koffi;
	const char *koffi_name;
	/* The same on this host and in the jail. */
	struct files files;
};

static const char *own_folder(void)
{
	static char path[PATH_MAX];
	ssize_t length = readlink("/proc/self/exe", path, sizeof(path) - 1);

	if (length <= 0)
		fail("/proc/self/exe: %s", strerror(errno));
	path[length] = 0;
	*strrchr(path, '/') = 0;
	return path;
}

static const char *find_node(void)
{
	const char *folders = getenv("PATH");

	if (!folders)
		folders = "/usr/local/bin:/usr/bin:/bin";
	while (*folders) {
		int length = (int)strcspn(folders, ":");
		char *path = text_of("%.*s/node", length, folders);

		if (length > 0 && access(path, X_OK) == 0 && (path = realpath(path, NULL)))
			return path;
		folders += length;
		folders += *folders == ':';
	}
	fail("node is not in PATH");
}

static const char *find_koffi(const char *bundle, const char *name)
{
	char *folder = strdup(bundle);

	for (char *end; folder && (end = strrchr(folder, '/')); *end = 0) {
		char *path = text_of("%s/" KOFFI_FOLDER "/%s", folder, name);

		if (access(path, R_OK) == 0)
			return path;
	}
	fail("koffi's native module is in no folder above %s: npm ci", bundle);
}

/* Whether Node's C library is musl decides which native module it can load. */
static bool is_musl(const struct files *files)
{
	for (int at = 0; at < files->count; at++)
		if (strstr(files->paths[at], "/ld-musl-"))
			return true;
	return false;
}

static void find_program(const struct options *options, struct program *program)
{
	struct stat stat_of;
	struct elf elf;
	const char *path = realpath(options->exec_file, NULL);

	if (!path || stat(path, &stat_of) < 0)
		fail("--exec-file %s: %s", options->exec_file, strerror(errno));
	if (!S_ISREG(stat_of.st_mode) || access(path, X_OK) < 0)
		fail("--exec-file %s: not a file that can be executed", options->exec_file);
	memset(program, 0, sizeof(*program));
	program->path = path;
	if (open_elf(path, &elf)) {
		/* It has another path in the jail; what it needs has the same. */
		add_program(&program->files, path);
		memmove(program->files.paths, program->files.paths + 1,
			(size_t)--program->files.count * sizeof(*program->files.paths));
		return;
	}
	const char *bundle = own_folder();
	const size_t length = strlen(bundle);

	if (strncmp(path, bundle, length) != 0 || path[length] != '/' || strchr(path + length + 1, '/'))
		fail("--exec-file %s: neither a program of this machine's nor one of vmlet's in %s", options->exec_file, bundle);
	program->bundle = bundle;
	program->node = find_node();
	add_program(&program->files, program->node);
	program->koffi_name = is_musl(&program->files) ? "musl_x64/koffi.node" : "linux_x64/koffi.node";
	program->koffi = find_koffi(bundle, program->koffi_name);
	struct files needed = {0};

	add_program(&needed, program->koffi);
	for (int at = 1; at < needed.count; at++)
		add_file(&program->files, needed.paths[at]);
}

static unsigned long long now_us(clockid_t clock)
{
	struct timespec time;

	clock_gettime(clock, &time);
	return (unsigned long long)time.tv_sec * 1000000 + (unsigned long long)time.tv_nsec / 1000;
}

/* Node forgets which signals its process ignores: vmm/host/inherited-signals.ts. */
static char *ignored_signals(void)
{
	unsigned long long mask = 0;

	for (int number = 1; number < NSIG; number++) {
		struct sigaction action;

		if (sigaction(number, NULL, &action) == 0 && action.sa_handler == SIG_IGN)
			mask |= 1ULL << (number - 1);
	}
	return text_of("VMLET_SIGIGN=%llx", mask);
}

/* Returns if it cannot be started. */
static void become_program(const struct options *options, const struct program *program, unsigned long long start_us)
{
	static const char *const node_flags[] = {"node", NODE_FLAGS "--"};
	const int flag_count = program->node ? (int)(sizeof(node_flags) / sizeof(*node_flags)) : 0;
	const char **words = calloc((size_t)(flag_count + options->extra_count + 10), sizeof(*words));
	char *path = text_of(PROGRAM_FOLDER "/%s", options->exec_name);
	char *environment[] = {program->node ? ignored_signals() : NULL, NULL};
	int count = 0;

	if (!words)
		fail("no memory");
	for (int at = 0; at < flag_count; at++)
		words[count++] = node_flags[at];
	words[count++] = path;
	words[count++] = "--id";
	words[count++] = options->id;
	words[count++] = "--start-time-us";
	words[count++] = text_of("%llu", start_us);
	words[count++] = "--start-time-cpu-us";
	words[count++] = text_of("%llu", now_us(CLOCK_PROCESS_CPUTIME_ID));
	for (int at = 0; at < options->extra_count; at++)
		words[count++] = options->extra[at];
	execve(program->node ? program->node : path, (char *const *)words, environment);
}

#endif
