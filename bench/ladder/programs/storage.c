/* Files and the disk under them, in scratch/ of the root file system of each rung: it is the
 * working directory, so that a plain process of the host finds it too. */
#include <asm/fcntl.h>
#include <asm/stat.h>
#include <asm/statfs.h>
#include <linux/fcntl.h>
#include <linux/fs.h>

#include "probe.h"
#include "runtime.h"

#define RAMFS_MAGIC 0x858458f6
#define TMPFS_MAGIC 0x01021994
#define BLOCK 4096UL
#define WRITE_BYTES (64 * BLOCK)
#define FILE_BYTES (2UL << 20)

static char path[] = "scratch/................";
static long fd;
static char *block;

/* Instances that run at once share the tree, and their process ids may be equal. */
static void name_file(void)
{
	uint64_t number;

	if (CALL(__NR_getrandom, &number, sizeof number, 0) != sizeof number)
		die("getrandom", 0);
	for (size_t i = 0; i < 2 * sizeof number; i++)
		path[sizeof path - 2 - i] = "0123456789abcdef"[number >> (4 * i) & 15];
}

static void touch(long n)
{
	struct stat found;

	for (long i = 0; i < n; i++) {
		long file = CALL(__NR_open, "file", O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);

		if (file < 0)
			die("file: open", file);
		CALL(__NR_close, file);
		if (CALL(__NR_stat, "file", &found) < 0 || CALL(__NR_unlink, "file") < 0)
			die("file", 0);
	}
}

/* ext4 without a journal leaves the inodes of removed files alone for minutes, and each new file in the
 * same block group looks past all of them: rungs would pay for their neighbours' files. Below a folder
 * with the flag of top folders (chattr +T), each folder is put into a block group of its own. Other file
 * systems have neither the trouble nor the flag. */
static void spread_folders(void)
{
	long scratch = CALL(__NR_open, "scratch", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int flags = 0;

	if (scratch >= 0 && CALL(__NR_ioctl, scratch, FS_IOC_GETFLAGS, &flags) == 0) {
		flags |= FS_TOPDIR_FL;
		CALL(__NR_ioctl, scratch, FS_IOC_SETFLAGS, &flags);
	}
	CALL(__NR_close, scratch);
}

void files(uint64_t budget_ns)
{
	char folder[sizeof path];

	spread_folders();
	name_file();
	memcpy(folder, path, sizeof path);
	long error = CALL(__NR_mkdir, folder, 0700);

	if (error < 0)
		die(folder, error);
	long root = CALL(__NR_open, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	CALL(__NR_chdir, folder);
	measure("file_create_stat_unlink_ns", touch, budget_ns);
	CALL(__NR_fchdir, root);
	CALL(__NR_close, root);
	CALL(__NR_rmdir, folder);
}

static unsigned long next_place(void)
{
	static uint64_t state = 1;

	state = state * 6364136223846793005ULL + 1442695040888963407ULL;
	return (state >> 33) % (FILE_BYTES / BLOCK) * BLOCK;
}

/* After each other, each told to the disk. */
static void write_on(long n)
{
	for (long i = 0; i < n; i++)
		if (CALL(__NR_pwrite64, fd, block, WRITE_BYTES, (unsigned long)i * WRITE_BYTES % FILE_BYTES) !=
			    (long)WRITE_BYTES ||
		    CALL(__NR_fdatasync, fd) < 0)
			die("disk: write", 0);
}

static void write_anywhere(long n)
{
	for (long i = 0; i < n; i++)
		if (CALL(__NR_pwrite64, fd, block, BLOCK, next_place()) != (long)BLOCK || CALL(__NR_fdatasync, fd) < 0)
			die("disk: write", 0);
}

static void read_on(long n)
{
	for (long i = 0; i < n; i++)
		if (CALL(__NR_pread64, fd, block, WRITE_BYTES, (unsigned long)i * WRITE_BYTES % FILE_BYTES) !=
		    (long)WRITE_BYTES)
			die("disk: read", 0);
}

static void read_anywhere(long n)
{
	for (long i = 0; i < n; i++)
		if (CALL(__NR_pread64, fd, block, BLOCK, next_place()) != (long)BLOCK)
			die("disk: read", 0);
}

static void skip_all(const char *const *names, size_t count, const char *reason)
{
	for (size_t i = 0; i < count; i++)
		skip(names[i], reason);
}

static const char *const writes[] = { "disk_write_256k_ns", "disk_write_4k_ns" };
static const char *const reads[] = { "disk_read_256k_ns", "disk_read_4k_ns" };

void disk(uint64_t budget_ns)
{
	struct statfs root;
	long error = CALL(__NR_statfs, "scratch", &root);

	if (error < 0)
		die("scratch", error);
	if (root.f_type == RAMFS_MAGIC || root.f_type == TMPFS_MAGIC) {
		skip_all(writes, 2, "the root file system is in memory");
		skip_all(reads, 2, "the root file system is in memory");
		return;
	}
	name_file();
	block = allocate(WRITE_BYTES);
	for (unsigned long i = 0; i < WRITE_BYTES; i++)
		block[i] = (char)i;
	fd = CALL(__NR_open, path, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
	if (fd < 0)
		die(path, fd);
	/* All of it is there before the clock runs: what is measured is no allocation. */
	for (unsigned long at = 0; at < FILE_BYTES; at += WRITE_BYTES)
		if (CALL(__NR_pwrite64, fd, block, WRITE_BYTES, at) != (long)WRITE_BYTES)
			die("disk: write", 0);
	CALL(__NR_fdatasync, fd);
	measure(writes[0], write_on, budget_ns);
	measure(writes[1], write_anywhere, budget_ns);
	CALL(__NR_close, fd);
	/* From the disk, not from memory that the writes have filled. */
	fd = CALL(__NR_open, path, O_RDONLY | O_DIRECT | O_CLOEXEC);
	if (fd < 0) {
		skip_all(reads, 2, "its file system has no O_DIRECT");
	} else {
		measure(reads[0], read_on, budget_ns);
		measure(reads[1], read_anywhere, budget_ns);
		CALL(__NR_close, fd);
	}
	CALL(__NR_unlink, path);
}

void mount_scratch(const char *device)
{
	long error = CALL(__NR_mount, device, "scratch", "ext4", 0, 0);

	if (error < 0)
		die(device, error);
}

void unmount_scratch(void)
{
	CALL(__NR_umount2, "scratch", 0);
}
