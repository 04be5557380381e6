/* Files and the disk under them, in scratch/ of the root file system of each rung: it is the
 * working directory, so that a plain process of the host finds it too. */
#include <asm/fcntl.h>
#include <asm/stat.h>
#include <asm/statfs.h>
#include <linux/fcntl.h>

#include "probe.h"
#include "runtime.h"

#define RAMFS_MAGIC 0x858458f6
#define TMPFS_MAGIC 0x01021994
#define BLOCK 4096UL
#define BLOCKS_PER_WRITE 64
#define WRITE_BYTES (BLOCK * BLOCKS_PER_WRITE)
#define FILE_BYTES (8UL << 20)

static char path[] = "scratch/................";
static char second[sizeof path];
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

/* Names of one file, not files: ext4 does not give out an inode again for some seconds, so that
 * each file made and removed makes the next one slower, on the next rung too. */
static void touch(long n)
{
	struct stat found;

	for (long i = 0; i < n; i++)
		if (CALL(__NR_link, path, second) < 0 || CALL(__NR_stat, second, &found) < 0 ||
		    CALL(__NR_unlink, second) < 0)
			die(second, 0);
}

void files(uint64_t budget_ns)
{
	name_file();
	long file = CALL(__NR_open, path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);

	if (file < 0)
		die(path, file);
	CALL(__NR_close, file);
	for (size_t i = 0; path[i]; i++)
		second[i] = path[i];
	second[sizeof path - 2] = '-';
	measure("file_link_stat_unlink_ns", touch, budget_ns);
	CALL(__NR_unlink, path);
}

/* 256 KiB after each other, then told to the disk. */
static void write_on(long n)
{
	for (long i = 0; i < n; i++) {
		unsigned long at = (unsigned long)i * WRITE_BYTES % FILE_BYTES;

		if (CALL(__NR_pwrite64, fd, block, WRITE_BYTES, at) != (long)WRITE_BYTES)
			die("pwrite", 0);
		if (CALL(__NR_fdatasync, fd) < 0)
			die("fdatasync", 0);
	}
}

static void read_anywhere(long n)
{
	uint64_t state = 1;

	for (long i = 0; i < n; i++) {
		state = state * 6364136223846793005ULL + 1442695040888963407ULL;
		unsigned long at = (state >> 33) % (FILE_BYTES / BLOCK) * BLOCK;

		if (CALL(__NR_pread64, fd, block, BLOCK, at) != (long)BLOCK)
			die("pread", 0);
	}
}

void disk(uint64_t budget_ns)
{
	struct statfs root;
	long error = CALL(__NR_statfs, "scratch", &root);

	if (error < 0)
		die("scratch", error);
	if (root.f_type == RAMFS_MAGIC || root.f_type == TMPFS_MAGIC) {
		skip("disk_write_256k_ns", "the root file system is in memory");
		skip("disk_read_4k_ns", "the root file system is in memory");
		return;
	}
	name_file();
	block = allocate(WRITE_BYTES);
	for (unsigned long i = 0; i < WRITE_BYTES; i++)
		block[i] = (char)i;
	fd = CALL(__NR_open, path, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
	if (fd < 0)
		die(path, fd);
	write_on(FILE_BYTES / WRITE_BYTES);
	measure("disk_write_256k_ns", write_on, budget_ns);
	CALL(__NR_close, fd);
	/* From the disk, not from memory that the writes have filled. */
	fd = CALL(__NR_open, path, O_RDONLY | O_DIRECT | O_CLOEXEC);
	if (fd < 0) {
		skip("disk_read_4k_ns", "its file system has no O_DIRECT");
	} else {
		measure("disk_read_4k_ns", read_anywhere, budget_ns);
		CALL(__NR_close, fd);
	}
	CALL(__NR_unlink, path);
}
