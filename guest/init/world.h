/* What a program expects to find, as in a container: /dev, /proc, /sys and what belongs in them, names,
 * a loopback interface, limits; and a root disk that may lack the places for it. */
#ifndef VMLET_WORLD_H
#define VMLET_WORLD_H

#include <asm/errno.h>
#include <asm/fcntl.h>
#include <linux/mount.h>
#include <linux/resource.h>
#include <linux/stat.h>

#include "network.h"
#include "root.h"
#include "syscall.h"
#include "text.h"

#define DEFAULT_NAME "vmlet"
#define LOCAL_NAMES "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
#define DT_DIR 4
#define DT_LNK 10
#define AT_SYMLINK_NOFOLLOW 0x100
#define AT_CWD -100L

/* As a service gets them from systemd or a container's engine. The first number stays small: there are programs
 * that close every descriptor up to it. */
#define SOFT_FILES 1024
#define HARD_FILES 524288

struct dirent64 {
	unsigned long inode, offset;
	unsigned short length;
	unsigned char type;
	char name[];
};

static char host_name[65 + 9] = "HOSTNAME=";

static void mount_one(const char *type, const char *at, unsigned long flags, const char *data)
{
	call2(mkdir, at, 0755);
	call5(mount, type, at, type, flags, data);
}

static void mount_kernel_places(void)
{
	mount_one("devtmpfs", "/dev", MS_NOSUID, "mode=0755");
	mount_one("proc", "/proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, 0);
	mount_one("sysfs", "/sys", MS_NOSUID | MS_NODEV | MS_NOEXEC, 0);
	mount_one("devpts", "/dev/pts", MS_NOSUID | MS_NOEXEC, "gid=5,mode=0620,ptmxmode=0666");
	mount_one("tmpfs", "/dev/shm", MS_NOSUID | MS_NODEV, "mode=1777");
	mount_one("mqueue", "/dev/mqueue", MS_NOSUID | MS_NODEV | MS_NOEXEC, 0);
	call2(symlink, "/proc/self/fd", "/dev/fd");
	call2(symlink, "/proc/self/fd/0", "/dev/stdin");
	call2(symlink, "/proc/self/fd/1", "/dev/stdout");
	call2(symlink, "/proc/self/fd/2", "/dev/stderr");
}

static void mount_all(void)
{
	mount_kernel_places();
	mount_one("tmpfs", "/tmp", MS_NOSUID | MS_NODEV, "mode=1777");
	mount_one("tmpfs", "/run", MS_NOSUID | MS_NODEV, "mode=0755");
	call2(mkdir, "/root", 0700);
}

static void set_limits(void)
{
	struct rlimit64 { unsigned long soft, hard; } files = { SOFT_FILES, HARD_FILES };

	call4(prlimit64, 0, RLIMIT_NOFILE, &files, 0);
}

static void raise_loopback(void)
{
	long fd = call3(socket, AF_INET, SOCK_DGRAM, 0);

	if (fd < 0)
		return;
	set_up(fd, "lo", 2);
	call1(close, fd);
}

static int is_empty(const char *path)
{
	struct statx about;
	long result = call5(statx, AT_CWD, path, 0, STATX_SIZE, &about);

	return result == -ENOENT || (result == 0 && about.stx_size == 0);
}

/* A file that the root disk lacks, as engines leave it in the images that they export: covered, not written. */
static void cover_file(const char *path, const char *file, const char *text)
{
	if (!is_empty(path))
		return;
	long fd = call3(open, file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	if (fd < 0)
		return;
	call3(write, fd, text, length_of(text));
	call1(close, fd);
	/* A place to mount it at. */
	fd = call3(open, path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
	if (fd >= 0)
		call1(close, fd);
	call5(mount, file, path, 0, MS_BIND, 0);
}

/* In the place of whatever is there; a link is not followed. */
static void put_file(const char *path, const char *text)
{
	call1(unlink, path);
	long fd = call3(open, path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0644);

	if (fd < 0)
		return;
	call3(write, fd, text, length_of(text));
	call1(close, fd);
}

/* The host's name and addresses, in an image. */
static void put_names(void)
{
	static char text[512];
	const char *end = text + sizeof(text), *name = host_name + 9;

	append(append(text, end, name), end, "\n");
	put_file("/etc/hostname", text);
	append(append(append(text, end, LOCAL_NAMES "127.0.1.1\t"), end, name), end, "\n");
	put_file("/etc/hosts", text);
}

static long rename_guest(const char *name)
{
	long result = call2(sethostname, name, length_of(name));

	if (result != 0)
		return result;
	append(host_name + 9, host_name + sizeof(host_name), name);
	if (root_kind == ROOT_IMAGE)
		put_names();
	return 0;
}

static void set_names(void)
{
	char *name = host_name + 9;
	/* An image has the name of whatever made it. */
	long fd = root_kind == ROOT_IMAGE ? -1 : call3(open, "/etc/hostname", O_RDONLY | O_CLOEXEC, 0);
	long length = fd < 0 ? 0 : call3(read, fd, name, 64);

	if (fd >= 0)
		call1(close, fd);
	for (long i = 0; i < length; i++)
		if (name[i] <= ' ')
			length = i;
	if (length <= 0)
		length = append(name, name + 64, DEFAULT_NAME) - name;
	name[length] = 0;
	call2(sethostname, name, length);
}

/* A root disk that may not be written and has no place for /dev or the others: a tmpfs takes the top of the tree,
 * and everything that the disk has is mounted into it. True if it worked. */
static int spread_root(const char *from, const char *to)
{
	static char entries[8192], source[512], target[512], link[512];
	long fd = call3(open, from, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);

	call2(mkdir, to, 0755);
	if (fd < 0 || call5(mount, "tmpfs", to, "tmpfs", 0, "mode=0755") != 0)
		return 0;
	for (long length; (length = call3(getdents64, fd, entries, sizeof(entries))) > 0;) {
		for (long at = 0; at < length;) {
			struct dirent64 *entry = (struct dirent64 *)(entries + at);
			const char *name = entry->name;
			struct statx about;

			at += entry->length;
			if (name[0] == '.' && (!name[1] || (name[1] == '.' && !name[2])))
				continue;
			append(append(append(source, source + 512, from), source + 512, "/"), source + 512, name);
			append(append(append(target, target + 512, to), target + 512, "/"), target + 512, name);
			if (call5(statx, AT_CWD, source, AT_SYMLINK_NOFOLLOW, STATX_TYPE, &about) != 0)
				continue;
			if ((about.stx_mode & S_IFMT) == S_IFLNK) {
				long count = call3(readlink, source, link, sizeof(link) - 1);

				if (count > 0) {
					link[count] = 0;
					call2(symlink, link, target);
				}
				continue;
			}
			if ((about.stx_mode & S_IFMT) == S_IFDIR)
				call2(mkdir, target, 0755);
			else
				call1(close, call3(open, target, O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
			call5(mount, source, target, 0, MS_BIND, 0);
		}
	}
	call1(close, fd);
	return 1;
}

/* True if each of them is there, or can be made, below the current folder. */
static int has_places(const char *const *places)
{
	for (; *places; places++) {
		long result = call2(mkdir, *places, 0755);

		if (result != 0 && result != -EEXIST)
			return 0;
	}
	return 1;
}

/* True if the disk is "/" from here on, with everything mounted there again. */
static int change_root(const char *device)
{
	/* What mount_all needs. */
	static const char *const places[] = { "dev", "proc", "sys", "tmp", "run", 0 };

	call2(mkdir, "/newroot", 0755);
	if (!is_mounted(device, "/newroot"))
		return 0;
	call1(chdir, "/newroot");
	if (!has_places(places) && spread_root("/newroot", "/spread"))
		call1(chdir, "/spread");
	if (call5(mount, ".", "/", 0, MS_MOVE, 0) != 0 || call1(chroot, ".") != 0)
		return 0;
	call1(chdir, "/");
	root_kind = ROOT_DISK;
	mount_all();
	cover_file("/etc/hosts", "/run/hosts", LOCAL_NAMES);
	return 1;
}

/* Makes the disk clean, once all that was killed is gone: nothing is left to recover at the next boot. */
static void leave_root(void)
{
	int status;

	while (call4(wait4, -1, &status, 0, 0) > 0)
		;
	call5(mount, 0, "/", 0, MS_REMOUNT | MS_RDONLY, 0);
}

#endif
