/* Removes a folder with all that is below it. Never through a link, and never out of it: each step goes to a name of the
 * folder at hand, or back to the one that it came from, and that is seen to be the same. */
#ifndef VMLET_AGENT_TREE_H
#define VMLET_AGENT_TREE_H

#include <asm/errno.h>
#include <linux/fcntl.h>
#include <linux/mman.h>
#include <linux/stat.h>

#include "../syscall.h"
#include "../world.h"

#define MAX_DEPTH 65536

/* The folders that lead to the one at hand. */
struct place {
	unsigned long inode;
	unsigned major, minor;
};

static int is_place(long fd, struct place *place, int is_known)
{
	struct statx about;

	if (call5(statx, fd, "", AT_EMPTY_PATH, STATX_INO, &about) != 0)
		return 0;
	struct place here = { about.stx_ino, about.stx_dev_major, about.stx_dev_minor };
	int is_same_place = here.inode == place->inode && here.major == place->major && here.minor == place->minor;

	if (!is_known)
		*place = here;
	return is_same_place || !is_known;
}

/* Goes down from `folder`, which is closed then. */
static long open_folder(long folder, const char *name)
{
	long fd = call4(openat, folder, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0);

	if (fd >= 0)
		call1(close, folder);
	return fd;
}

/* 0, or an error. What cannot be removed ends it. In a process of its own. */
static long remove_tree(const char *path)
{
	static char entries[32768], name[256];
	struct place *places = (struct place *)call6(mmap, 0, MAX_DEPTH * sizeof(struct place), PROT_READ | PROT_WRITE,
						     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	long fd = call3(open, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0), result = fd;
	unsigned depth = 0;

	if ((unsigned long)places > -4096UL)
		return -ENOMEM;
	if (fd < 0 || !is_place(fd, &places[0], 0))
		return fd < 0 ? fd : -EIO;
	for (;;) {
		int has_removed = 0, has_descended = 0;
		long length;

		while (!has_descended && (length = call3(getdents64, fd, entries, sizeof(entries))) > 0) {
			for (long at = 0; at < length && !has_descended;) {
				struct dirent64 *entry = (struct dirent64 *)(entries + at);
				const char *found = entry->name;

				at += entry->length;
				if (found[0] == '.' && (!found[1] || (found[1] == '.' && !found[2])))
					continue;
				result = call3(unlinkat, fd, found, 0);
				if (result == -EISDIR || result == -EPERM)
					result = call3(unlinkat, fd, found, AT_REMOVEDIR);
				if (result == 0 || result == -ENOENT) {
					has_removed = 1;
					continue;
				}
				if (result != -ENOTEMPTY && result != -EEXIST)
					return result;
				if (++depth == MAX_DEPTH)
					return -ELOOP;
				append(name, name + sizeof(name), found);
				result = open_folder(fd, name);
				if (result < 0)
					return result;
				fd = result;
				if (!is_place(fd, &places[depth], 0))
					return -EIO;
				has_descended = 1;
			}
		}
		if (has_descended)
			continue;
		/* Some file systems skip names while others are removed. */
		if (has_removed && call3(lseek, fd, 0, 0) == 0)
			continue;
		if (depth == 0)
			break;
		result = open_folder(fd, "..");
		if (result < 0)
			return result;
		fd = result;
		/* Somebody has moved what we were in to another place. */
		if (!is_place(fd, &places[--depth], 1))
			return -EBUSY;
	}
	call1(close, fd);
	result = call3(unlinkat, AT_FDCWD, path, AT_REMOVEDIR);
	return result == -ENOENT ? 0 : result;
}

#endif
