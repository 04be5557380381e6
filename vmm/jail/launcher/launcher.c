/* vmlet-jailer: starts a program in a jail that it makes first, with the command line of Firecracker's jailer. All that is wrong
 * with what was asked is said before anything is made; what cannot be made ends it, and what was made is taken back. What the host
 * does not offer and nobody has asked for is left out, with a line. SECURITY.md has the walls; docs/jailer.md the options and what
 * stays behind.
 */
#include "around.h"
#include "cgroup.h"
#include "limits.h"
#include "options.h"
#include "program.h"
#include "rights.h"
#include "root.h"
#include "spawn.h"

#include <linux/nsfs.h>
#include <sys/ioctl.h>

static int help(void)
{
	puts("vmlet-jailer " JAILER_VERSION ": starts a program in a jail\n\n"
	     "  vmlet-jailer --id ID --exec-file FILE --uid UID --gid GID [OPTIONS] [-- WORDS]\n");
	for (int at = 0; at < HELP; at++)
		printf("  --%-26s %s\n", text_of("%s %s", flags[at].name, flags[at].value), flags[at].what);
	return fflush(stdout) == 0 ? 0 : EXIT_FAILED;
}

static int open_netns(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		fail("--netns %s: %s", path, strerror(errno));
	if (ioctl(fd, NS_GET_NSTYPE) != CLONE_NEWNET)
		fail("--netns %s: not a network namespace", path);
	return fd;
}

static void check_base(const struct options *options)
{
	struct stat stat_of;

	if (stat(options->base, &stat_of) < 0)
		fail("--chroot-base-dir %s: %s", options->base, strerror(errno));
	if (!S_ISDIR(stat_of.st_mode))
		fail("--chroot-base-dir %s: not a folder", options->base);
}

/* Mounts need rights over a mount namespace: the host's, or those of a user namespace, in which there is this user alone. */
static bool enter_mount_namespace(const struct options *options)
{
	if (has_capability(CAP_SYS_ADMIN) && has_capability(CAP_SETUID) && has_capability(CAP_SETGID)) {
		if (unshare(CLONE_NEWNS) < 0)
			fail("no mount namespace: %s", strerror(errno));
		return true;
	}
	if (options->uid != geteuid() || options->gid != getegid())
		fail("--uid %u --gid %u: without root's rights, %u and %u alone, which this is", options->uid, options->gid,
		     geteuid(), getegid());
	if (!new_user_namespace(CLONE_NEWNS, options->uid, options->gid))
		fail("needs root's rights, or a user namespace, which the host does not allow (user.max_user_namespaces, "
		     "kernel.unprivileged_userns_clone, seccomp): %s", strerror(errno));
	return false;
}

static void try_namespace(int flag, const char *what)
{
	if (unshare(flag) < 0)
		say("goes on without %s namespace: %s", what, strerror(errno));
}

static void enter_namespaces(const struct options *options, const struct groups *groups, int netns)
{
	enter_groups(options, groups);
	try_namespace(CLONE_NEWCGROUP, "a cgroup");
	try_namespace(CLONE_NEWIPC, "an IPC");
	if (unshare(CLONE_NEWUTS) < 0)
		say("goes on without a UTS namespace: %s", strerror(errno));
	else if (sethostname(options->id, strlen(options->id)) < 0 || setdomainname("", 0) < 0)
		say("goes on with the host's name: %s", strerror(errno));
	if (options->netns && setns(netns, CLONE_NEWNET) < 0)
		fail("--netns %s: %s", options->netns, strerror(errno));
	if (options->new_net_ns && unshare(CLONE_NEWNET) < 0)
		fail("--new-net-ns: %s", strerror(errno));
}

int main(int argc, char **argv)
{
	static struct given given[FLAG_COUNT];
	static struct groups groups;
	static struct program program;
	struct options options = {0};
	struct limits limits;
	struct root root = {0};
	const unsigned long long start_us = now_us(CLOCK_MONOTONIC);
	int netns = -1;

	if (argc > 2 && strcmp(argv[1], AROUND) == 0)
		start_around(argc, argv);
	parse_options(argc, argv, given, &options);
	if (given[HELP].count > 0)
		return help();
	if (given[VERSION].count > 0)
		return printf("Jailer v" JAILER_VERSION "\n") > 0 && fflush(stdout) == 0 ? 0 : EXIT_FAILED;
	/* Whatever the caller had open is none of the program's business. */
	close_from(STDERR_FILENO + 1);
	find_program(&options, &program);
	check_base(&options);
	check_limits(&options, &limits);
	check_cgroups(&options, &groups);
	if (options.netns)
		netns = open_netns(options.netns);

	/* The program has to find its way through the folders that are made. */
	const mode_t mask = umask(022);

	root.is_privileged = enter_mount_namespace(&options);
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		fail("mounts cannot be made private: %s", strerror(errno));
	make_root(&options, &program, &root);
	make_groups(&options, &groups);
	enter_namespaces(&options, &groups, netns);

	struct spawn spawn = prepare_spawn(&options);

	become_process(&options, &root, &spawn);
	enter_root(&root);
	set_limits(&limits);
	become_user(&options, root.is_privileged);
	leave_standard_files(&spawn);
	umask(mask);
	become_program(&options, &program, start_us);
	fail("%s cannot be started: %s", options.exec_file, strerror(errno));
}
