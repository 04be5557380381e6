/* `vmlet run`, `vmlet boot --jail`: the shell's line of dist/vmlet.js has the launcher start Node, in namespaces. Root and network are still the
 * host's, for what the VM has to open; the process leaves them when it seals itself (vmm/jail/leave-host.ts). What the host does
 * not allow is left out, with a line. */
#ifndef VMLET_LAUNCHER_AROUND_H
#define VMLET_LAUNCHER_AROUND_H

#include <sys/mount.h>

#include "attendant.h"
#include "rights.h"

#define AROUND "around"
#define EXIT_NO_NODE 127

enum jail { JAIL_OFF, JAIL_ASKED, JAIL_USUAL };

/* By the words of the command up to its own --, which come behind Node's and the script. Only `vmlet boot` is in no jail unless asked. */
static enum jail jail_of(int argc, char **argv)
{
	int at = 2;

	while (at < argc && strcmp(argv[at], "--") != 0)
		at++;
	at += 2;
	enum jail jail = at < argc && strcmp(argv[at], "boot") == 0 ? JAIL_OFF : JAIL_USUAL;

	for (; at < argc && strcmp(argv[at], "--") != 0; at++) {
		if (strcmp(argv[at], "--jail") == 0 && at + 1 < argc)
			jail = strcmp(argv[at + 1], "off") == 0 ? JAIL_OFF : JAIL_ASKED;
		else if (strncmp(argv[at], "--jail=", 7) == 0)
			jail = strcmp(argv[at], "--jail=off") == 0 ? JAIL_OFF : JAIL_ASKED;
	}
	return jail;
}

/* What a user who is not root becomes has a right only if it is an ambient one. False with errno. */
static bool keep_over_exec(int capability)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2];

	if (syscall(SYS_capget, &header, data) < 0)
		return false;
	data[capability / 32].inheritable |= 1U << (capability % 32);
	return syscall(SYS_capset, &header, data) == 0 &&
	       prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0) == 0;
}

/*
 * Root has its rights over the exec without the bounding set, whose rights are gone for good: to give them up later, each of Node's threads would
 * have to.
 */
static void drop_bounding_early(void)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2];

	if (syscall(SYS_capget, &header, data) < 0)
		return;
	for (int half = 0; half < 2; half++)
		data[half].inheritable = data[half].permitted;
	if (syscall(SYS_capset, &header, data) == 0)
		drop_bounding();
}

/* False with errno. As root, files of other users have to be opened, which a user namespace with root alone would not allow. */
static bool enter_namespaces_around(void)
{
	const int namespaces = CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP;

	if (has_capability(CAP_SYS_ADMIN)) {
		drop_bounding_early();
		return unshare(namespaces) == 0;
	}
	return new_user_namespace(namespaces, geteuid(), getegid()) && keep_over_exec(CAP_SYS_ADMIN);
}

static _Noreturn void start_around(int argc, char **argv)
{
	const enum jail jail = jail_of(argc, argv);

	say_as = "vmlet";
	if (jail != JAIL_OFF) {
		if (!leave_attendant())
			say("the jail goes on without an attendant: %s", strerror(errno));
		/* What is mounted on the host later is seen until the seal. */
		if (enter_namespaces_around() && mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) == 0)
			/* Node keeps this number: nobody else takes the word for its own. */
			setenv("VMLET_OWN_NAMESPACES", text_of("%d", getpid()), 1);
		else if (jail == JAIL_ASKED)
			say("the jail goes on without namespaces: %s", strerror(errno));
	}
	execvp(argv[2], argv + 2);
	say("%s: %s", argv[2], strerror(errno));
	_exit(EXIT_NO_NODE);
}

#endif
