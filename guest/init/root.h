/* Mounts the root disk as the kernel would, by its own words: ro, rw, rootfstype= and rootflags=. */
#ifndef VMLET_ROOT_H
#define VMLET_ROOT_H

#include <asm/errno.h>
#include <linux/mount.h>

#include "root-kind.h"
#include "syscall.h"

#define MAX_TYPE 31

/* One after the other, like the kernel with rootfstype=. */
static char root_types[128] = "ext4,squashfs,xfs,btrfs,erofs";
static char root_data[256];
static unsigned long root_flags;
/* Why the last device could not be mounted: the first errno that is not about a type alone. */
static long mount_error;

static int is_mounted(const char *device, const char *at)
{
	char type[MAX_TYPE + 1];
	const char *data = root_data[0] ? root_data : 0;

	mount_error = 0;
	for (const char *next = root_types; *next;) {
		size_t length = 0;

		for (; *next && *next != ','; next++)
			if (length < MAX_TYPE)
				type[length++] = *next;
		type[length] = 0;
		if (*next)
			next++;
		if (call5(mount, device, at, type, root_flags, data) == 0)
			return 1;
		/* A disk that the host attached read-only. */
		long result = call5(mount, device, at, type, root_flags | MS_RDONLY, data);

		if (result == 0)
			return 1;
		if (mount_error == 0 || mount_error == EINVAL || mount_error == ENODEV)
			mount_error = -result;
	}
	return 0;
}

#endif
