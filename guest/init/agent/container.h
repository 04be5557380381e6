/* A command's own process becomes the first or a further one of a container: a mount namespace of its own with the container's
 * root, what is mounted in it, what is hidden, names, devices; then what the process may. The host says it in steps, which are
 * strings: one that is a letter, and behind it as many as that takes (vmm/agent/container-request.ts). */
#ifndef VMLET_AGENT_CONTAINER_H
#define VMLET_AGENT_CONTAINER_H

#include <asm/errno.h>
#include <asm/fcntl.h>
#include <linux/capability.h>
#include <linux/mount.h>
#include <linux/prctl.h>
#include <linux/sched.h>
#include <linux/stat.h>

#include "../execute.h"
#include "../syscall.h"
#include "../text.h"
#include "namespaces.h"
#include "nodes.h"
#include "protocol.h"
#include "seccomp.h"

#define MNT_DETACH_ 2
#define MAX_OPERANDS 5
#define LAST_CAPABILITY 63
#define READ_ONLY_AGAIN (MS_BIND | MS_REMOUNT | MS_RDONLY)
#define UNMASKABLE "/dev/null"

/* What there is a place for it at: a folder, or an empty file. */
static void make_place(const char *path, int is_file)
{
	static char folder[MAX_PATH];
	char *end = folder;

	if (!is_file) {
		make_folders(path);
		return;
	}
	/* Opened for writing it would no longer be its image's. */
	if (is_there(path))
		return;
	append(folder, folder + sizeof(folder), path);
	for (char *at = folder; *at; at++)
		if (*at == '/')
			end = at;
	*end = 0;
	make_folders(folder);
	call1(close, call3(open, path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
}

static unsigned number_of(const char *text)
{
	unsigned value = 0;

	read_number(text, &value);
	return value;
}

/* The place is looked for only where the kernel has not found it. */
static long mount_at(const char *source, const char *target, const char *type, unsigned flags, const char *data, int is_file)
{
	long result = call5(mount, source, target, type, flags, data);

	if (result != -ENOENT)
		return result;
	make_place(target, is_file);
	return call5(mount, source, target, type, flags, data);
}

/* What the mount has of its own, such as read-only, takes another call for a bind. */
static long bind(const char *source, const char *target, unsigned flags, int is_file)
{
	unsigned more = flags & ~(unsigned)(MS_BIND | MS_REC);
	long result = mount_at(source, target, 0, MS_BIND | (flags & MS_REC), 0, is_file);

	return result == 0 && more ? call5(mount, 0, target, 0, MS_BIND | MS_REMOUNT | more, 0) : result;
}

static long mask(const char *path)
{
	struct statx about;

	if (call5(statx, AT_FDCWD_, path, 0, STATX_TYPE, &about) != 0)
		return 0;
	if ((about.stx_mode & S_IFMT) == S_IFDIR)
		return call5(mount, "tmpfs", path, "tmpfs", MS_RDONLY, 0);
	return call5(mount, UNMASKABLE, path, 0, MS_BIND, 0);
}

static long forbid_writes(const char *path)
{
	long result = call5(mount, path, path, 0, MS_BIND | MS_REC, 0);

	if (result == -ENOENT)
		return 0;
	return result == 0 ? call5(mount, 0, path, 0, READ_ONLY_AGAIN, 0) : result;
}

static long make_device(char **operands)
{
	unsigned mode = number_of(operands[1]), major = number_of(operands[2]), minor = number_of(operands[3]);
	unsigned device = (minor & 0xff) | ((major & 0xfff) << 8) | ((minor & ~0xffU) << 12);
	unsigned uid = 0, gid = 0;
	char *colon = operands[4];

	while (*colon && *colon != ':')
		colon++;
	if (*colon)
		*colon++ = 0;
	uid = number_of(operands[4]);
	gid = number_of(colon);
	/* A share takes none: the guest's own is lent. */
	return make_node(operands[0], mode, device, uid, gid) == 0 ? 0 : bind(operands[0] + 1, operands[0], 0, 1);
}

/* In the guest's own /proc, which lies below the current folder. */
static long write_sysctl(const char *name, const char *value)
{
	static char path[MAX_PATH];
	const char *end = path + sizeof(path);

	append(append(path, end, "proc/sys/"), end, name);
	return write_text(path, value);
}

/* The root is a folder of a share; what holds that is the guest's own, and lies below the current folder from here on. */
static long enter_root(const char *root)
{
	long own = -1, result = namespaces_made & CLONE_NEWNS ? 0 : call1(unshare, CLONE_NEWNS);

	if (result == 0)
		result = call5(mount, 0, "/", 0, MS_REC | MS_PRIVATE, 0);
	/* Of this namespace's: nothing can be bound from another one's. */
	if (result == 0)
		result = own = call3(open, "/", O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
	if (result < 0)
		return result;
	make_folders("/.vmlet/root");
	result = call5(mount, root, "/.vmlet/root", 0, MS_BIND | MS_REC, 0);
	if (result == 0)
		result = call1(chdir, "/.vmlet/root");
	if (result == 0)
		result = call5(mount, ".", "/", 0, MS_MOVE, 0);
	if (result == 0)
		result = call1(chroot, ".");
	if (result == 0)
		result = call1(fchdir, own);
	call1(close, own);
	return result;
}

static long take_step(char letter, char **operands, const char *terminal)
{
	switch (letter) {
	case 'c':
		return enter_root(operands[0]);
	case 'b':
		return bind(operands[0], operands[1], number_of(operands[2]), operands[3][0] == 'f');
	case 'm':
		return mount_at(operands[1], operands[2], operands[0], number_of(operands[3]),
				operands[4][0] ? operands[4] : 0, 0);
	case 'p':
		return call5(mount, 0, operands[0], 0, number_of(operands[1]), 0);
	case 'l':
		return make_link(operands[0], operands[1]);
	case 'n':
		return make_device(operands);
	case 'r':
		return forbid_writes(operands[0]);
	case 'k':
		return mask(operands[0]);
	case 's':
		return write_sysctl(operands[0], operands[1]);
	case 'h':
		return call2(sethostname, operands[0], length_of(operands[0]));
	case 'd':
		return call2(setdomainname, operands[0], length_of(operands[0]));
	case 't':
		/* Its name begins with a slash; it lies in the guest's own root. */
		return terminal[0] ? bind(terminal + 1, operands[0], 0, 1) : 0;
	case 'g':
		return open_cgroup(operands[0]);
	case 'q':
		return limit_cgroup(operands[0], operands[1]);
	case 'f':
		return take_filter(number_of(operands[0]), operands[1]);
	case 'u':
		return call2(umount2, operands[0], MNT_DETACH_);
	default:
		return -EINVAL;
	}
}

static int operands_of(char letter)
{
	switch (letter) {
	case 'n': case 'm':
		return 5;
	case 'b':
		return 4;
	case 'p': case 'l': case 's': case 'f': case 'q':
		return 2;
	default:
		return 1;
	}
}

/* What goes wrong is about the last of these. */
static const char *name_of(char letter, char **operands)
{
	return operands[letter == 'm' ? 2 : letter == 'b' || letter == 'l' ? 1 : 0];
}

static int is_of_node(char letter)
{
	return letter == 'n' || letter == 'l';
}

static int is_of_cgroup(char letter)
{
	return letter == 'g' || letter == 'q';
}

static int take_each(char **steps, unsigned count, unsigned *next, const char *terminal)
{
	static char text[64] = "cannot set up the container (step x): ";
	unsigned at = *next;

	for (; at < count; *next = at) {
		char letter = steps[at][0];

		if (!terminal && !is_of_cgroup(letter))
			return 0;
		unsigned operands = (unsigned)operands_of(letter);

		if (count - at <= operands)
			return refuse_with(-EINVAL, "the request is not a valid one", "");
		if (!is_of_node(letter))
			forget_parent();
		long result = take_step(letter, steps + at + 1, terminal);

		if (result != 0) {
			text[34] = letter;
			/* ENOENT is the program's alone. */
			return refuse_with(result == -ENOENT ? -ENXIO : result, text, name_of(letter, steps + at + 1));
		}
		at += operands + 1;
	}
	return 0;
}

/* From the step at `*next` on; without a terminal's name: those of the control group alone, as far as they come first. */
static int take_steps(char **steps, unsigned count, unsigned *next, const char *terminal)
{
	/* A node gets the mode that is asked for at once. */
	long mask = terminal ? call1(umask, 0) : 0;
	int status = take_each(steps, count, next, terminal);

	forget_parent();
	if (terminal)
		call1(umask, mask);
	return status;
}

static long set_oom_score(int score)
{
	static char number[16];
	char *at = number;

	if (score < 0)
		*at++ = '-';
	append_number(at, number + sizeof(number), (unsigned)(score < 0 ? -score : score));
	return write_text("/proc/self/oom_score_adj", number);
}

/* Before it becomes another user: what it may never have again. */
static long drop_bounding(unsigned long kept)
{
	for (unsigned long i = 0; i <= LAST_CAPABILITY; i++) {
		if (kept >> i & 1)
			continue;
		long result = call2(prctl, PR_CAPBSET_DROP, i);

		/* The kernel does not know so many. */
		if (result == -EINVAL)
			break;
		if (result != 0)
			return result;
	}
	return call2(prctl, PR_SET_KEEPCAPS, 1);
}

/* After. */
static long set_capabilities(const struct exec_container *container)
{
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct data[2];
	long result;

	for (int i = 0; i < 2; i++)
		data[i] = (struct __user_cap_data_struct){ (unsigned)(container->effective >> 32 * i),
							   (unsigned)(container->permitted >> 32 * i),
							   (unsigned)(container->inheritable >> 32 * i) };
	call2(prctl, PR_SET_KEEPCAPS, 0);
	result = call2(capset, &header, data);
	call4(prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0);
	for (unsigned long i = 0; i <= LAST_CAPABILITY && result == 0; i++)
		if (container->ambient >> i & 1)
			call4(prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, i, 0);
	return result;
}

/* Whoever the process becomes can open its own standard streams by name. */
static void own_streams(unsigned uid)
{
	struct statx about, null;

	call5(statx, AT_FDCWD_, "/dev/null", 0, STATX_TYPE, &null);
	for (long fd = 0; fd < 3; fd++) {
		if (call5(statx, fd, "", AT_EMPTY_PATH, STATX_TYPE, &about) != 0)
			continue;
		int is_null = (about.stx_mode & S_IFMT) == S_IFCHR && about.stx_rdev_major == 1;

		if (!is_null)
			call3(fchown, fd, uid, -1);
	}
}

#endif
