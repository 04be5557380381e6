/* Capabilities, user and group, and the user namespace. */
#ifndef VMLET_LAUNCHER_RIGHTS_H
#define VMLET_LAUNCHER_RIGHTS_H

#include <grp.h>
#include <linux/capability.h>
#include <linux/keyctl.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "lines.h"
#include "options.h"

/* A set of capabilities is 64 bits. */
#define CAPABILITIES 64

static bool has_capability(int capability)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2];

	if (syscall(SYS_capget, &header, data) < 0)
		return false;
	return data[capability / 32].effective >> (capability % 32) & 1;
}

/* Also for whatever this process becomes. */
static void drop_bounding(void)
{
	for (int capability = 0; capability < CAPABILITIES; capability++)
		prctl(PR_CAPBSET_DROP, capability, 0, 0, 0);
	prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
}

static void drop_capabilities(void)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2] = {0};

	drop_bounding();
	if (syscall(SYS_capset, &header, data) < 0)
		fail("capabilities cannot be given up: %s", strerror(errno));
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		fail("no_new_privs cannot be set: %s", strerror(errno));
}

/*
 * A user namespace in which there are this user and this group alone, by their own numbers: whoever regains a right in it has
 * none over what others made. Returns false with errno.
 */
static bool new_user_namespace(int more, uid_t uid, gid_t gid)
{
	/* One that has changed its user has its entries in /proc owned by root. */
	prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
	if (unshare(CLONE_NEWUSER | more) < 0)
		return false;
	/* Kernels before 3.19 have no such file, and need it not. */
	if (!write_line(AT_FDCWD, "/proc/self/setgroups", "deny") && errno != ENOENT)
		return false;
	return write_line(AT_FDCWD, "/proc/self/uid_map", text_of("%u %u 1", uid, uid)) &&
	       write_line(AT_FDCWD, "/proc/self/gid_map", text_of("%u %u 1", gid, gid));
}

/* Whoever possesses a keyring may use what is in it, whatever user that is. */
static void leave_keyring(void)
{
	if (syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL) < 0 && errno != ENOSYS)
		say("goes on with the caller's keyring: %s", strerror(errno));
}

/* `is_privileged`: the namespaces of so far are the host's user's. */
static void become_user(const struct options *options, bool is_privileged)
{
	if (is_privileged) {
		drop_bounding();
		/* A user namespace without other groups forbids it. */
		if (setgroups(0, NULL) < 0)
			say("goes on with the caller's groups: %s", strerror(errno));
		if (setresgid(options->gid, options->gid, options->gid) < 0 ||
		    setresuid(options->uid, options->uid, options->uid) < 0)
			fail("--uid %u --gid %u: %s", options->uid, options->gid, strerror(errno));
		if (!new_user_namespace(0, options->uid, options->gid))
			say("goes on without a user namespace: %s", strerror(errno));
	}
	leave_keyring();
	drop_capabilities();
}

#endif
