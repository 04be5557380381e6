/* A container's process among the guest's: the control group that counts it, the namespaces that it enters, and those that are
 * its own. Who is in a PID namespace is so from its birth on: what the process was told goes on in a child, which takes its place
 * with the agent. */
#ifndef VMLET_AGENT_NAMESPACES_H
#define VMLET_AGENT_NAMESPACES_H

#include <asm/errno.h>
#include <asm/fcntl.h>
#include <asm/signal.h>
#include <linux/mount.h>
#include <linux/sched.h>

#include "../syscall.h"
#include "../text.h"
#include "protocol.h"

#define NAMESPACES (CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET)
#define NO_NAMESPACE "the guest's kernel has no such namespace"
#define CGROUP_PLACE "/sys/fs/cgroup"
#define CGROUP_MOUNT (MS_NOSUID | MS_NODEV | MS_NOEXEC)

static int refuse_with(long error, const char *text, const char *name);

/* Ends with a slash; empty: the process stays where it is. */
static char cgroup_folder[MAX_PATH];
static unsigned namespaces_made;

static long write_text(const char *path, const char *text)
{
	long fd = call3(open, path, O_WRONLY | O_CLOEXEC, 0), count;

	if (fd < 0)
		return fd;
	count = call3(write, fd, text, length_of(text));
	call1(close, fd);
	return count < 0 ? count : 0;
}

/* "a/b" of letters, digits, "-", "_", "." and ":"; no part of it leads upwards. */
static int is_cgroup_name(const char *name)
{
	int is_first = 1;

	for (const char *c = name; *c; c++) {
		int is_letter = (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') || (*c >= '0' && *c <= '9');

		if (*c == '/' ? is_first : !(is_letter || *c == '_' || (!is_first && (*c == '-' || *c == '.' || *c == ':'))))
			return 0;
		is_first = *c == '/';
	}
	return !is_first;
}

/* Made if it is not there, from the hierarchy on. */
static long open_cgroup(const char *name)
{
	const char *end = cgroup_folder + sizeof(cgroup_folder);
	char *at = append(cgroup_folder, end, CGROUP_PLACE "/");
	long result = 0;

	if (!is_cgroup_name(name) || length_of(name) > 255)
		return -EINVAL;
	if (call4(faccessat, AT_FDCWD_, CGROUP_PLACE "/cgroup.procs", 0, 0) != 0)
		result = call5(mount, "cgroup2", CGROUP_PLACE, "cgroup2", CGROUP_MOUNT, 0);
	if (result != 0)
		return result;
	for (; *name; name++) {
		*at++ = *name;
		*at = 0;
		if (name[1] && name[1] != '/')
			continue;
		result = call2(mkdir, cgroup_folder, 0755);
		if (result != 0 && result != -EEXIST)
			return result;
	}
	append(at, end, "/");
	return 0;
}

/* What of a file's name stands before the dot is the controller, which each group above has to hand down. */
static void hand_down(const char *file)
{
	static char path[MAX_PATH + 32], word[32] = "+";
	size_t length = 1;

	for (; *file && *file != '.' && length < sizeof(word) - 1; file++)
		word[length++] = *file;
	word[length] = 0;
	append(path, path + sizeof(path), cgroup_folder);
	for (char *at = path + sizeof(CGROUP_PLACE) - 1; *at; at++) {
		static char rest[MAX_PATH];

		/* The last one is the group itself. */
		if (*at != '/' || !at[1])
			continue;
		append(rest, rest + sizeof(rest), at + 1);
		append(at + 1, path + sizeof(path), "cgroup.subtree_control");
		write_text(path, word);
		append(at + 1, path + sizeof(path), rest);
	}
}

static long limit_cgroup(const char *file, const char *value)
{
	static char path[MAX_PATH + 32];
	const char *end = path + sizeof(path);

	if (!cgroup_folder[0] || length_of(file) > 63)
		return -EINVAL;
	for (const char *c = file; *c; c++)
		if (*c == '/')
			return -EINVAL;
	hand_down(file);
	append(append(path, end, cgroup_folder), end, file);
	return write_text(path, value);
}

static int enter_cgroup(void)
{
	static char path[MAX_PATH + 32];
	const char *end = path + sizeof(path);

	if (!cgroup_folder[0])
		return 0;
	append(append(path, end, cgroup_folder), end, "cgroup.procs");
	long result = write_text(path, "0");

	return result == 0 ? 0 : refuse_with(result, "cannot enter the control group ", cgroup_folder);
}

/* The caller's number of the child lies in `first` before that runs. Until the child's exec its memory is the same, and this
 * process sleeps: where the kernel's code is emulated, a copy of it would cost as much as the exec itself. It wakes to nothing but
 * its end, for which it needs no word of the stack that has changed meanwhile. */
static long continue_in_child(volatile int *first)
{
	unsigned long flags = CLONE_PARENT | CLONE_PARENT_SETTID | CLONE_VM | CLONE_VFORK | SIGCHLD;
	long result = call5(clone, flags, 0, first, 0, 0);

	if (result > 0)
		call1(exit_group, 0);
	return result;
}

/* The process that comes back is the one that lives on. */
static int enter_namespaces(const struct exec_container *container, volatile int *first)
{
	unsigned both = container->joined | container->made;
	long result;

	if (both & ~(unsigned)NAMESPACES)
		return refuse_with(-EINVAL, NO_NAMESPACE, "");
	namespaces_made = container->made;
	if (container->pid) {
		long fd = call2(pidfd_open, container->pid, 0);

		result = fd < 0 ? fd : call2(setns, fd, container->joined);
		if (fd >= 0)
			call1(close, fd);
		if (result != 0)
			return refuse_with(result, result == -EINVAL ? NO_NAMESPACE : "the container's first process is not there", "");
	}
	if (container->made && (result = call1(unshare, container->made)) != 0)
		return refuse_with(result, result == -EINVAL ? NO_NAMESPACE : "cannot make a namespace", "");
	if (!(both & CLONE_NEWPID))
		return 0;
	result = continue_in_child(first);
	if (result == 0)
		/* The one before has led the session so far. */
		return call0(setsid) < 0 ? refuse_with(-EPERM, "cannot make a session", "") : 0;
	/* ENOMEM: its process 1 has ended. */
	return refuse_with(result == -ENOMEM ? -ESRCH : result,
			   result == -EAGAIN ? "the container has as many processes as it may" :
			   result == -ENOMEM ? "the container's first process is not there" :
					       "cannot make a process", "");
}

#endif
