/* In a guest, in a folder that is shared with the host: what programs do with files, and what they are told when it cannot be
 * done. Prints "ok NAME" for each part, else what went wrong. Arguments: the folder, and a file system below it that is full
 * after a MiB, if there is one. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK(what) \
	do { \
		if (!(what)) { \
			printf("line %d: %s: %s\n", __LINE__, #what, strerror(errno)); \
			return; \
		} \
	} while (0)
#define FAILS(call, error) CHECK((errno = 0, (call) == -1 && errno == (error)))

static char big[1 << 18];

static void mappings(void)
{
	int fd = open("map", O_RDWR | O_CREAT, 0644);
	CHECK(fd >= 0);
	for (size_t i = 0; i < sizeof big; i++)
		big[i] = (char)(i * 7 + i / 4096);
	CHECK(write(fd, big, sizeof big) == sizeof big);
	char *read_only = mmap(0, sizeof big, PROT_READ, MAP_PRIVATE, fd, 0);
	CHECK(read_only != MAP_FAILED && memcmp(read_only, big, sizeof big) == 0);
	char *shared = mmap(0, sizeof big, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK(shared != MAP_FAILED);
	memcpy(shared + 4090, "across a page", 13);
	CHECK(msync(shared, sizeof big, MS_SYNC) == 0);
	char seen[13];
	CHECK(pread(fd, seen, 13, 4090) == 13 && memcmp(seen, "across a page", 13) == 0);
	munmap(shared, sizeof big);
	munmap(read_only, sizeof big);
	close(fd);
	puts("ok mappings");
}

/* A child tries what this process has. */
static int child_gets(int kind, const char *path)
{
	pid_t pid = fork();
	if (pid == 0) {
		int fd = open(path, O_RDWR);
		struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 10 };
		int result = kind == 0 ? flock(fd, LOCK_EX | LOCK_NB) : fcntl(fd, F_SETLK, &lock);
		_exit(fd < 0 ? 2 : result == 0 ? 1 : 0);
	}
	int status = 0;
	waitpid(pid, &status, 0);
	return WEXITSTATUS(status);
}

static void locks(void)
{
	int fd = open("lock", O_RDWR | O_CREAT, 0644);
	CHECK(fd >= 0);
	for (int kind = 0; kind < 2; kind++) {
		struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 10 };
		CHECK((kind == 0 ? flock(fd, LOCK_EX) : fcntl(fd, F_SETLK, &lock)) == 0);
		CHECK(child_gets(kind, "lock") == 0);
		lock.l_type = F_UNLCK;
		CHECK((kind == 0 ? flock(fd, LOCK_UN) : fcntl(fd, F_SETLK, &lock)) == 0);
		CHECK(child_gets(kind, "lock") == 1);
	}
	close(fd);
	puts("ok locks");
}

/* Every byte that a name may have, the longest one, and none longer. */
static void names(void)
{
	char name[300];
	CHECK(mkdir("names", 0755) == 0 && chdir("names") == 0);
	for (int byte = 1; byte < 256; byte++) {
		if (byte == '/')
			continue;
		snprintf(name, sizeof name, "n%c", byte);
		CHECK(mknod(name, S_IFREG | 0600, 0) == 0);
	}
	memset(name, 'x', 255);
	name[255] = 0;
	CHECK(mkdir(name, 0700) == 0);
	name[255] = 'x';
	name[256] = 0;
	FAILS(mkdir(name, 0700), ENAMETOOLONG);
	DIR *folder = opendir(".");
	CHECK(folder != 0);
	unsigned char seen[256] = { 0 };
	int count = 0;
	for (struct dirent *entry; (entry = readdir(folder)) != 0; count++)
		if (entry->d_name[0] == 'n' && strlen(entry->d_name) == 2)
			seen[(unsigned char)entry->d_name[1]]++;
	closedir(folder);
	CHECK(count == 254 + 1 + 2);
	for (int byte = 1; byte < 256; byte++)
		CHECK(seen[byte] == (byte != '/'));
	CHECK(chdir("..") == 0);
	puts("ok names");
}

static void deep(void)
{
	CHECK(mkdir("deep", 0755) == 0 && chdir("deep") == 0);
	for (int i = 0; i < 20; i++)
		CHECK(mkdir("a folder in a folder", 0755) == 0 && chdir("a folder in a folder") == 0);
	int fd = open("bottom", O_WRONLY | O_CREAT, 0644);
	CHECK(fd >= 0 && write(fd, "deep", 4) == 4 && close(fd) == 0);
	puts("ok deep");
}

static void changes(void)
{
	struct stat a, b;
	int fd = open("one", O_RDWR | O_CREAT, 0640);
	CHECK(fd >= 0 && write(fd, "one", 3) == 3);
	CHECK(link("one", "two") == 0 && stat("one", &a) == 0 && stat("two", &b) == 0);
	CHECK(a.st_ino == b.st_ino && b.st_nlink == 2 && (b.st_mode & 07777) == 0640);
	CHECK(close(open("three", O_WRONLY | O_CREAT, 0644)) == 0);
	CHECK(rename("one", "three") == 0 && access("one", F_OK) == -1);
	FAILS(syscall(316, AT_FDCWD, "two", AT_FDCWD, "three", 1), EEXIST); /* renameat2, RENAME_NOREPLACE */
	/* Open, and nowhere. */
	CHECK(unlink("two") == 0 && unlink("three") == 0);
	char seen[4] = { 0 };
	CHECK(pread(fd, seen, 4, 0) == 3 && strcmp(seen, "one") == 0 && fstat(fd, &a) == 0 && a.st_nlink == 0);
	CHECK(ftruncate(fd, 1 << 20) == 0 && fstat(fd, &a) == 0 && a.st_size == 1 << 20);
	CHECK(pwrite(fd, "end", 3, (1 << 20) + 5) == 3 && pread(fd, seen, 1, 1 << 20) == 1 && seen[0] == 0);
	CHECK(fsync(fd) == 0 && close(fd) == 0);
	fd = open("times", O_WRONLY | O_CREAT, 0644);
	struct timespec times[2] = { { 1000000000, 123456789 }, { 1234567890, 987654321 } };
	CHECK(futimens(fd, times) == 0 && fchmod(fd, 04711) == 0 && close(fd) == 0 && stat("times", &a) == 0);
	CHECK(a.st_mtim.tv_sec == 1234567890 && a.st_mtim.tv_nsec == 987654321 && (a.st_mode & 07777) == 04711);
	fd = open("appended", O_WRONLY | O_CREAT | O_APPEND, 0644);
	CHECK(write(fd, "ab", 2) == 2 && lseek(fd, 0, SEEK_SET) == 0 && write(fd, "cd", 2) == 2 && close(fd) == 0);
	CHECK(stat("appended", &a) == 0 && a.st_size == 4);
	CHECK(mkfifo("fifo", 0600) == 0 && stat("fifo", &a) == 0 && S_ISFIFO(a.st_mode));
	puts("ok changes");
}

static void errors(const char *full)
{
	CHECK(mkdir("errors", 0755) == 0 && chdir("errors") == 0);
	int fd = open("file", O_RDWR | O_CREAT, 0600);
	CHECK(fd >= 0);
	FAILS(open("none", O_RDONLY), ENOENT);
	FAILS(open("file/x", O_RDONLY), ENOTDIR);
	FAILS(open("file", O_WRONLY | O_CREAT | O_EXCL, 0600), EEXIST);
	FAILS(open(".", O_WRONLY), EISDIR);
	FAILS(mkdir("file", 0700), EEXIST);
	FAILS(rmdir("file"), ENOTDIR);
	FAILS(unlink("."), EISDIR);
	CHECK(mkdir("d", 0700) == 0 && mkdir("d/e", 0700) == 0);
	FAILS(rmdir("d"), ENOTEMPTY);
	FAILS(rename("d", "d/e/f"), EINVAL);
	FAILS(rename("file", "d"), EISDIR);
	FAILS(rename("file", "/file"), EXDEV);
	FAILS(link("file", "/file"), EXDEV);
	CHECK(symlink("loop", "loop") == 0);
	FAILS(open("loop", O_RDONLY), ELOOP);
	FAILS(readlink("file", big, sizeof big), EINVAL);
	FAILS(mknod("device", S_IFBLK | 0600, 0x800), EPERM);
	if (full != 0) {
		char path[200];
		snprintf(path, sizeof path, "%s/big", full);
		int to = open(path, O_WRONLY | O_CREAT, 0600);
		CHECK(to >= 0);
		ssize_t wrote = 0;
		for (int i = 0; i < 8 && wrote >= 0; i++)
			wrote = write(to, big, sizeof big);
		CHECK(wrote == -1 && errno == ENOSPC);
		close(to);
	}
	/* Others than its owner. */
	pid_t pid = fork();
	if (pid == 0) {
		setgid(1);
		setuid(1);
		int none = open("file", O_RDONLY);
		_exit(none == -1 && errno == EACCES ? 0 : 1);
	}
	int status = 0;
	waitpid(pid, &status, 0);
	CHECK(status == 0);
	close(fd);
	puts("ok errors");
}

int main(int count, char **words)
{
	setvbuf(stdout, 0, _IOLBF, 0);
	if (count < 2)
		return 64;
	void (*parts[])(void) = { mappings, locks, names, changes, deep };
	for (unsigned i = 0; i < sizeof parts / sizeof *parts; i++) {
		if (chdir(words[1]) != 0)
			return 1;
		parts[i]();
	}
	if (chdir(words[1]) != 0)
		return 1;
	errors(count > 2 ? words[2] : 0);
	return 0;
}
