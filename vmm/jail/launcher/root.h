/* The jail's file system: the folder BASE/NAME/ID/root, which is the program's to write, and in it folders in memory that only this
 * mount namespace has: devices, the program, its libraries, its own entry in /proc. What a former program has left in the folder is
 * not trusted: no link in it is followed. */
#ifndef VMLET_LAUNCHER_ROOT_H
#define VMLET_LAUNCHER_ROOT_H

#include <sys/statvfs.h>
#include <sys/sysmacros.h>

#include "program.h"
#include "rights.h"

#define MAX_TOPS 16
/* Folders and mount points alone. */
#define TMPFS_OPTIONS "size=64k,mode=0755"

static const char *const devices[] = {"/dev/kvm", "/dev/net/tun", "/dev/urandom", "/dev/userfaultfd", NULL};

/* What vmlet's programs ask about the host: its processor, memory and boot, and which KVM it has. */
static const char *const facts[] = {
	"/proc/cpuinfo",
	"/proc/meminfo",
	"/proc/sys/kernel/random/boot_id",
	"/sys/module/kvm",
	"/sys/module/kvm_intel",
	"/sys/module/kvm_amd",
	"/sys/module/kvm_pvm",
	NULL,
};

struct root {
	char *path;
	int fd;
	bool is_privileged;
	/* Folders in memory. */
	struct {
		const char *name;
		int fd;
	} tops[MAX_TOPS];
	int top_count;
};

static const char *fd_path(int fd)
{
	return text_of("/proc/self/fd/%d", fd);
}

static int open_folder(int parent, const char *name)
{
	int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	if (fd < 0)
		fail("folder %s in the jail: %s", name, strerror(errno));
	return fd;
}

static int make_folder(int parent, const char *name, mode_t mode)
{
	if (mkdirat(parent, name, mode) == 0)
		undo_push((struct undo){.folder = parent, .name = name, .flags = AT_REMOVEDIR});
	else if (errno != EEXIST)
		fail("folder %s of the jail: %s", name, strerror(errno));
	return open_folder(parent, name);
}

/* Flags that cannot be taken away without the host's rights stay. */
static void change_flags(const char *path, unsigned long added)
{
	struct statvfs stat;
	unsigned long kept = 0;

	if (statvfs(path, &stat) == 0)
		kept = (stat.f_flag & ST_RDONLY ? MS_RDONLY : 0) | (stat.f_flag & ST_NOSUID ? MS_NOSUID : 0) |
		       (stat.f_flag & ST_NODEV ? MS_NODEV : 0) | (stat.f_flag & ST_NOEXEC ? MS_NOEXEC : 0) |
		       (stat.f_flag & ST_NOATIME ? MS_NOATIME : 0) | (stat.f_flag & ST_NODIRATIME ? MS_NODIRATIME : 0) |
		       (stat.f_flag & ST_RELATIME ? MS_RELATIME : 0);
	if (mount(NULL, path, NULL, MS_REMOUNT | MS_BIND | kept | added, NULL) < 0)
		fail("a mount of the jail cannot be protected: %s", strerror(errno));
}

static void own(const struct root *root, int fd, const struct options *options)
{
	if (root->is_privileged && fchown(fd, options->uid, options->gid) < 0)
		fail("--uid %u --gid %u: %s", options->uid, options->gid, strerror(errno));
	if (fchmod(fd, 0700) < 0)
		fail("a folder of the jail: %s", strerror(errno));
}

static void make_root_folder(const struct options *options, struct root *root)
{
	char *base = realpath(options->base, NULL);
	int fd = base ? open(base, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;

	if (fd < 0)
		fail("--chroot-base-dir %s: %s", options->base, strerror(errno));
	fd = make_folder(fd, options->exec_name, 0755);
	fd = make_folder(fd, options->id, 0755);
	fd = make_folder(fd, "root", 0700);
	own(root, fd, options);
	own(root, make_folder(fd, "run", 0700), options);
	root->path = text_of("%s/%s/%s/root", base, options->exec_name, options->id);
	/* What a client has mounted in it for its VM stays. */
	if (mount(root->path, root->path, NULL, MS_BIND | MS_REC, NULL) < 0)
		fail("%s: %s", root->path, strerror(errno));
	undo_push((struct undo){.mount = root->path});
	change_flags(root->path, MS_NOSUID | MS_NOEXEC);
	root->fd = open(root->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (root->fd < 0)
		fail("%s: %s", root->path, strerror(errno));
}

/* The folder in memory of that name; made when it is first asked for. */
static int top_folder(struct root *root, const char *name)
{
	for (int at = 0; at < root->top_count; at++)
		if (strcmp(root->tops[at].name, name) == 0)
			return root->tops[at].fd;
	if (root->top_count == MAX_TOPS)
		fail("more than %d folders for libraries", MAX_TOPS);
	int under = make_folder(root->fd, name, 0755);
	/* Devices are in one of them alone. */
	const unsigned long flags = MS_NOSUID | MS_NOEXEC | (strcmp(name, "dev") == 0 ? 0 : MS_NODEV);

	if (mount("tmpfs", fd_path(under), "tmpfs", flags, TMPFS_OPTIONS) < 0)
		fail("a folder in memory for the jail: %s", strerror(errno));
	close(under);
	undo_push((struct undo){.mount = text_of("%s/%s", root->path, name)});
	int fd = open_folder(root->fd, name);

	root->tops[root->top_count].name = name;
	root->tops[root->top_count++].fd = fd;
	return fd;
}

/* The folder of a path of the jail; `name`: the path's last part. */
static int folder_in(struct root *root, const char *path, const char **name)
{
	char *rest = NULL;
	char *copy = strdup(path);
	char *part = copy ? strtok_r(copy, "/", &rest) : NULL;
	int fd = -1;

	for (char *next; part && (next = strtok_r(NULL, "/", &rest)); part = next) {
		if (fd >= 0 && mkdirat(fd, part, 0755) < 0 && errno != EEXIST)
			fail("%s in the jail: %s", path, strerror(errno));
		fd = fd < 0 ? top_folder(root, part) : open_folder(fd, part);
	}
	if (fd < 0)
		fail("%s: a file at the top of the host's file system", path);
	*name = part;
	return fd;
}

/* Shows a file or folder of the host in the jail. */
static void bind_mount(struct root *root, const char *source, const char *path, unsigned long flags)
{
	const char *name;
	int folder = folder_in(root, path, &name);
	struct stat stat_of;
	int target = -1;

	if (stat(source, &stat_of) < 0)
		fail("%s: %s", source, strerror(errno));
	if (S_ISDIR(stat_of.st_mode) && mkdirat(folder, name, 0755) == 0)
		target = open_folder(folder, name);
	else if (!S_ISDIR(stat_of.st_mode))
		target = openat(folder, name, O_RDONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0444);
	if (target < 0 || mount(source, fd_path(target), NULL, MS_BIND, NULL) < 0)
		fail("%s in the jail: %s", path, strerror(errno));
	close(target);
	if (flags == 0)
		return;
	/* From here on, the name is the mount's. */
	target = openat(folder, name, O_PATH | O_CLOEXEC);
	if (target < 0)
		fail("%s in the jail: %s", path, strerror(errno));
	change_flags(fd_path(target), flags);
	close(target);
}

/* A node of its own, for its user alone. Where the host allows no nodes, its own with its rights, if they suffice. */
static void make_device(const struct options *options, struct root *root, const char *path)
{
	const char *name;
	struct stat stat_of;

	if (stat(path, &stat_of) < 0 || !S_ISCHR(stat_of.st_mode))
		return;
	if (root->is_privileged) {
		int folder = folder_in(root, path, &name);

		if (mknodat(folder, name, S_IFCHR | 0600, stat_of.st_rdev) == 0) {
			if (fchownat(folder, name, options->uid, options->gid, AT_SYMLINK_NOFOLLOW) < 0 ||
			    fchmodat(folder, name, 0600, 0) < 0)
				fail("%s in the jail: %s", path, strerror(errno));
			return;
		}
		if (errno != EPERM)
			fail("%s in the jail: %s", path, strerror(errno));
	}
	const bool may_open = root->is_privileged ? (stat_of.st_mode & 06) == 06 : euidaccess(path, R_OK | W_OK) == 0;

	if (may_open)
		bind_mount(root, path, path, 0);
	else if (path == devices[0])
		say("goes on without /dev/kvm: user %u may not open it", options->uid);
}

/* The program's own entry alone: not those of other processes, and nothing of the kernel's. */
static void make_proc(struct root *root)
{
	if (mkdirat(top_folder(root, "proc"), "self", 0555) < 0)
		fail("/proc/self in the jail: %s", strerror(errno));
}

static void make_root(const struct options *options, const struct program *program, struct root *root)
{
	const unsigned long flags = MS_RDONLY | MS_NOSUID | MS_NODEV;

	make_root_folder(options, root);
	for (const char *const *device = devices; *device; device++)
		make_device(options, root, *device);
	for (int at = 0; at < program->files.count; at++)
		bind_mount(root, program->files.paths[at], program->files.paths[at], flags);
	if (program->node) {
		const char *name;
		char *link = text_of(PROGRAM_FOLDER "/%s", options->exec_name);

		for (const char *const *fact = facts; *fact; fact++)
			if (access(*fact, F_OK) == 0)
				bind_mount(root, *fact, *fact, flags | MS_NOEXEC);
		bind_mount(root, program->bundle, BUNDLE_FOLDER, flags | MS_NOEXEC);
		bind_mount(root, program->koffi, text_of(JAIL_FOLDER "/" KOFFI_FOLDER "/%s", program->koffi_name), flags);
		/* Node finds the bundle by the file that the link leads to, and tells the program the link's name. */
		int folder = folder_in(root, link, &name);

		if (symlinkat(text_of(BUNDLE_FOLDER "%s", strrchr(program->path, '/')), folder, name) < 0)
			fail("%s in the jail: %s", link, strerror(errno));
	} else {
		bind_mount(root, program->path, text_of(PROGRAM_FOLDER "/%s", options->exec_name), flags);
	}
	make_proc(root);
	for (int at = 0; at < root->top_count; at++)
		change_flags(fd_path(root->tops[at].fd), MS_RDONLY);
}

/* By the process that becomes the program, whose entry in /proc it is. */
static void enter_root(struct root *root)
{
	int entry = openat(top_folder(root, "proc"), "self", O_PATH | O_DIRECTORY | O_CLOEXEC);

	if (entry < 0 || mount("/proc/self/", fd_path(entry), NULL, MS_BIND, NULL) < 0)
		fail("/proc/self in the jail: %s", strerror(errno));
	change_flags(text_of("%s/proc/self", root->path), MS_NOSUID | MS_NODEV | MS_NOEXEC);
	if (chdir(root->path) < 0)
		fail("%s: %s", root->path, strerror(errno));
	if (syscall(SYS_pivot_root, ".", ".") == 0) {
		/* Both are at the same place; the host's is on top. */
		undo_count = 0;
		if (umount2(".", MNT_DETACH) < 0)
			fail("the host's file system cannot be left: %s", strerror(errno));
	} else if (errno == EINVAL && mount(".", "/", NULL, MS_MOVE, NULL) == 0) {
		/* An initramfs is the host's root, and cannot be left: it is covered. */
		undo_count = 0;
		if (chroot(".") < 0)
			fail("%s: %s", root->path, strerror(errno));
	} else {
		fail("%s cannot become the root: %s", root->path, strerror(errno));
	}
	if (chdir("/") < 0)
		fail("/: %s", strerror(errno));
}

#endif
