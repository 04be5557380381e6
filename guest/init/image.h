/* A container's image as the root: a file system that is only read, and over it, unless the guest is not to write at all, a
 * layer in memory that goes with the guest. Programs find what they find in a container: of the tree only /dev, /proc and
 * /sys are not the image's own, and three files in /etc. */
#ifndef VMLET_IMAGE_H
#define VMLET_IMAGE_H

#include <asm/fcntl.h>
#include <linux/mount.h>
#include <linux/stat.h>

#include "root.h"
#include "syscall.h"
#include "text.h"
#include "world.h"

#define IMAGE_TYPES "erofs,squashfs,ext4"
#define WRITABLE_LAYER "mode=0755,size=80%"
#define LAYERS "lowerdir=/image,upperdir=/writable/upper,workdir=/writable/work"

/* Files in /etc that are the guest's: in a tree that is not to be written they cover the image's, which must be there. */
static const char *const own_files[] = { "etc/hosts", "etc/hostname", "etc/resolv.conf" };

static void cover_own_files(void)
{
	char file[] = "/own0";

	for (size_t i = 0; i < sizeof(own_files) / sizeof(own_files[0]); i++) {
		file[4] = (char)('0' + i);
		call1(close, call3(open, file, O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
		call5(mount, file, own_files[i], 0, MS_BIND, 0);
	}
}

static int mount_layers(void)
{
	struct statx about;

	call2(mkdir, "/writable", 0755);
	if (call5(mount, "tmpfs", "/writable", "tmpfs", 0, WRITABLE_LAYER) != 0)
		return 0;
	call2(mkdir, "/writable/upper", 0755);
	call2(mkdir, "/writable/work", 0755);
	/* The tree's own folder is the upper layer's. */
	if (call5(statx, AT_CWD, "/image", 0, STATX_BASIC_STATS, &about) == 0) {
		call3(chown, "/writable/upper", about.stx_uid, about.stx_gid);
		call2(chmod, "/writable/upper", about.stx_mode & 07777);
	}
	call2(mkdir, "/newroot", 0755);
	return call5(mount, "overlay", "/newroot", "overlay", 0, LAYERS) == 0;
}

/* Once the guest has a name. */
static void put_own_files(void)
{
	call2(mkdir, "/etc", 0755);
	put_names();
	/* Without a network there is nobody to be asked; with one, network.h says who. */
	put_file("/etc/resolv.conf", "");
}

/* True if the image is "/" from here on. */
static int enter_image(const char *device, int is_readonly)
{
	static const char *const places[] = { "dev", "proc", "sys", 0 };
	const char *at = is_readonly ? "/newroot" : "/image";

	call2(mkdir, at, 0755);
	append(root_types, root_types + sizeof(root_types), IMAGE_TYPES);
	root_flags = MS_RDONLY;
	if (!is_mounted(device, at) || (!is_readonly && !mount_layers()))
		return 0;
	call1(chdir, "/newroot");
	if (!has_places(places) && spread_root("/newroot", "/spread"))
		call1(chdir, "/spread");
	if (is_readonly)
		cover_own_files();
	if (call5(mount, ".", "/", 0, MS_MOVE, 0) != 0 || call1(chroot, ".") != 0)
		return 0;
	call1(chdir, "/");
	root_kind = ROOT_IMAGE;
	mount_kernel_places();
	/* If it is spread_root's. */
	if (is_readonly)
		call5(mount, 0, "/", 0, MS_REMOUNT | MS_RDONLY, 0);
	return 1;
}

#endif
