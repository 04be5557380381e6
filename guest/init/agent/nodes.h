/* Device nodes and links of a container. Most lie in one folder: it is looked up once, as each path through a share asks the
 * host for every part of it, and what can be made at once is not looked for before. */
#ifndef VMLET_AGENT_NODES_H
#define VMLET_AGENT_NODES_H

#include <asm/errno.h>
#include <asm/fcntl.h>
#include <linux/fcntl.h>
#include <linux/stat.h>

#include "../execute.h"
#include "../syscall.h"
#include "../text.h"

static void make_folders(const char *path);

/* The folder of the last node, open; -1: none. */
static long parent = -1;
static char parent_path[MAX_PATH];

/* Whatever is mounted may lie over it. */
static void forget_parent(void)
{
	if (parent >= 0)
		call1(close, parent);
	parent = -1;
}

/* Opens the folder that `path` lies in, made if it is not there, and sets `*name` to what is left; or an error. */
static long open_parent(const char *path, const char **name)
{
	static char folder[MAX_PATH];
	const char *last = 0;
	size_t length;

	for (const char *at = path; *at; at++)
		if (*at == '/')
			last = at;
	if (!last || !last[1]) {
		*name = path;
		return AT_FDCWD_;
	}
	*name = last + 1;
	length = (size_t)(last - path);
	if (length >= MAX_PATH)
		return -ENAMETOOLONG;
	memcpy(folder, length ? path : "/", length ? length : 1);
	folder[length ? length : 1] = 0;
	if (parent >= 0 && is_same(folder, parent_path))
		return parent;
	forget_parent();
	parent = call3(open, folder, O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
	if (parent == -ENOENT) {
		make_folders(folder);
		parent = call3(open, folder, O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
	}
	if (parent >= 0)
		memcpy(parent_path, folder, MAX_PATH);
	return parent;
}

/* Whatever the folder gives to what is made in it: a group, an access list. */
static long make_own(long folder, const char *name, unsigned mode, unsigned uid, unsigned gid)
{
	struct statx about;
	long result = call5(statx, folder, name, AT_SYMLINK_NOFOLLOW, STATX_MODE | STATX_UID | STATX_GID, &about);

	if (result == 0 && (about.stx_mode & 07777) != (mode & 07777))
		call3(fchmodat, folder, name, mode & 07777);
	if (result == 0 && (about.stx_uid != uid || about.stx_gid != gid))
		result = call5(fchownat, folder, name, uid, gid, AT_SYMLINK_NOFOLLOW);
	return result;
}

/* In the place of what is there. An error where no node can be made, such as in a share. */
static long make_node(const char *path, unsigned mode, unsigned device, unsigned uid, unsigned gid)
{
	const char *name;
	long folder = open_parent(path, &name), result;

	if (folder < 0 && folder != AT_FDCWD_)
		return folder;
	result = call4(mknodat, folder, name, mode, device);
	if (result == -EEXIST && call3(unlinkat, folder, name, 0) == 0)
		result = call4(mknodat, folder, name, mode, device);
	return result == 0 ? make_own(folder, name, mode, uid, gid) : result;
}

/* In the place of what is there. */
static long make_link(const char *text, const char *path)
{
	const char *name;
	long folder = open_parent(path, &name), result;

	if (folder < 0 && folder != AT_FDCWD_)
		return folder;
	result = call3(symlinkat, text, folder, name);
	if (result == -EEXIST && call3(unlinkat, folder, name, 0) == 0)
		result = call3(symlinkat, text, folder, name);
	return result;
}

#endif
