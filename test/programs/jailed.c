/* What a program sees in a jail: a line "key: value" for each thing. Its own words: "to FILE", where it writes them; "stay", not to end;
 * "with-key PROGRAM WORDS" at first: becomes that program, with a key in its keyring that whoever has the keyring may use. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/keyctl.h>
#include <grp.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

extern char **environ;

static void list(const char *folder)
{
	DIR *stream = opendir(*folder ? folder : "/");
	struct dirent *entry;

	while (stream && (entry = readdir(stream))) {
		char path[4096];
		struct stat stat;

		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name);
		if (lstat(path, &stat) == 0 && S_ISDIR(stat.st_mode) && strcmp(path, "/proc/self") != 0)
			list(path);
		else
			printf("file: %s\n", path);
	}
	if (stream)
		closedir(stream);
}

static void status(void)
{
	FILE *file = fopen("/proc/self/status", "r");
	char line[1024];

	while (file && fgets(line, sizeof(line), file))
		if (strncmp(line, "Cap", 3) == 0 || strncmp(line, "NoNewPrivs", 10) == 0)
			printf("%.*s: %s", (int)strcspn(line, ":"), line, strchr(line, '\t') + 1);
	if (file)
		fclose(file);
}

static void namespaces(void)
{
	static const char *const names[] = {"user", "mnt", "pid", "ipc", "uts", "net", "cgroup", NULL};

	for (const char *const *name = names; *name; name++) {
		char path[64];
		char target[64] = "";

		snprintf(path, sizeof(path), "/proc/self/ns/%s", *name);
		if (readlink(path, target, sizeof(target) - 1) > 0)
			printf("namespace: %s\n", target);
	}
}

static void try(const char *what, int result)
{
	printf("%s: %s\n", what, result < 0 ? strerrorname_np(errno) : "done");
}

#define KEY "user", "vmlet-test"
/* All rights of the possessor: keyctl(2). */
#define POSSESSOR_ALL 0x3f000000

static int become_with_key(char **words)
{
	syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL);
	long key = syscall(SYS_add_key, KEY, "secret", 6, KEY_SPEC_SESSION_KEYRING);

	if (key < 0)
		return 8;
	syscall(SYS_keyctl, KEYCTL_SETPERM, key, POSSESSOR_ALL);
	execv(words[0], words);
	return 9;
}

int main(int argc, char **argv)
{
	if (argc > 2 && strcmp(argv[1], "with-key") == 0)
		return become_with_key(argv + 2);

	char name[256] = "";
	struct rlimit limit;
	const char *to = NULL;
	int stays = 0;

	try("key of the caller's", (int)syscall(SYS_request_key, KEY, NULL, 0));
	/* What follows would change a host. */
	if (access("/etc/passwd", F_OK) == 0)
		return 7;
	for (int at = 1; at < argc; at++) {
		if (strcmp(argv[at], "to") == 0)
			to = argv[at + 1];
		if (strcmp(argv[at], "stay") == 0)
			stays = 1;
	}
	if (to && !freopen(to, "w", stdout))
		return 9;
	for (int fd = 0; to && fd < 3; fd++) {
		struct stat stat;

		if (fd != 1 && fstat(fd, &stat) == 0)
			printf("standard: %s\n", S_ISCHR(stat.st_mode) && stat.st_rdev == makedev(1, 3) ? "null" : "other");
	}
	for (int fd = 0; fd < 100; fd++) {
		struct stat stat;

		if (fstat(fd, &stat) == 0)
			printf("descriptor: %d\n", fd);
	}
	for (int at = 0; at < argc; at++)
		printf("word: %s\n", argv[at]);
	for (char **variable = environ; *variable; variable++)
		printf("variable: %s\n", *variable);
	gethostname(name, sizeof(name) - 1);
	printf("host: %s\npid: %d\nsession: %d\nuid: %d\ngid: %d\ngroups: %d\n", name, getpid(), getsid(0), getuid(), getgid(),
	       getgroups(0, NULL));
	printf("umask: %03o\n", umask(0));
	getrlimit(RLIMIT_FSIZE, &limit);
	printf("fsize: %llu %llu\n", (unsigned long long)limit.rlim_cur, (unsigned long long)limit.rlim_max);
	getrlimit(RLIMIT_NOFILE, &limit);
	printf("no-file: %llu %llu\n", (unsigned long long)limit.rlim_cur, (unsigned long long)limit.rlim_max);
	namespaces();
	status();
	list("");
	struct if_nameindex *interfaces = if_nameindex();

	for (struct if_nameindex *at = interfaces; at && at->if_index; at++)
		printf("interface: %s\n", at->if_name);
	try("mount", mount("tmpfs", "/run", "tmpfs", 0, NULL));
	try("unmount", umount("/dev"));
	try("node", mknod("/run/node", S_IFCHR | 0600, makedev(1, 1)));
	try("root user", setuid(0));
	try("own root", chroot("/run"));
	try("own program", open("/vmlet/bin/jailed", O_WRONLY));
	try("file beside it", open("/vmlet/file", O_WRONLY | O_CREAT, 0600));
	try("file in the root", open("/file", O_WRONLY | O_CREAT, 0600));
	try("outside", open("/../etc/passwd", O_RDONLY));
	try("kvm", open("/dev/kvm", O_RDWR));
	try("tun", open("/dev/net/tun", O_RDWR));
	try("urandom", open("/dev/urandom", O_RDONLY));
	fflush(stdout);
	while (stays)
		pause();
	return 0;
}
