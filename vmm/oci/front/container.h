/* A container's state folder, and what its file "front" says of it. Read once; whatever is not as it is written there, or is
 * too long, is for Node. */
#ifndef VMLET_FRONT_CONTAINER_H
#define VMLET_FRONT_CONTAINER_H

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_GROUPS 16
#define MAX_FILE 16384
#define BOOT_ID_PATH "/proc/sys/kernel/random/boot_id"

struct container {
	int root_fd;
	int fd;
	const char *id;
	/* The monitor's: proc(5), stat, field 22. */
	int pid;
	unsigned long long start_ticks;
	char boot[64];
	bool may_start;
	bool may_delete;
	/* Its control groups. */
	const char *groups[MAX_GROUPS];
	int group_count;
	char text[MAX_FILE];
};

static bool is_in(const char *const *names, const char *name, size_t length)
{
	for (; *names; names++)
		if (strlen(*names) == length && memcmp(*names, name, length) == 0)
			return true;
	return false;
}

/* vmm/oci/container-id.ts, but shorter. */
static bool is_name(const char *id)
{
	size_t length = strlen(id);

	if (length == 0 || length > NAME_MAX || strcmp(id, ".") == 0 || strcmp(id, "..") == 0)
		return false;
	for (const char *at = id; *at; at++)
		if (!isalnum((unsigned char)*at) && !strchr("_+.-", *at))
			return false;
	return true;
}

/* Also where that cannot be known. */
static bool is_there(const char *root, const char *id)
{
	char path[PATH_MAX];
	struct stat stat;

	if (snprintf(path, sizeof(path), "%s/%s", root, id) >= (int)sizeof(path))
		return true;
	return lstat(path, &stat) == 0 || errno != ENOENT;
}

/* The file's text with a NUL behind it; false if it cannot be read, or does not fit. */
static bool read_text(int folder, const char *name, char *text, size_t size)
{
	int fd = openat(folder, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	size_t length = 0;
	ssize_t count = fd < 0 ? -1 : 1;

	while (count > 0 && length < size) {
		count = read(fd, text + length, size - length);
		if (count > 0)
			length += (size_t)count;
	}
	if (fd >= 0)
		close(fd);
	if (count != 0 || length == size)
		return false;
	text[length] = 0;
	return memchr(text, 0, length) == NULL;
}

/* Lines: "monitor PID TICKS BOOT", then "start", "delete", "group PATH". */
static bool parse_front(struct container *container)
{
	char *rest = NULL;
	char *line = strtok_r(container->text, "\n", &rest);

	if (!line || sscanf(line, "monitor %d %llu %63s", &container->pid, &container->start_ticks, container->boot) != 3)
		return false;
	while ((line = strtok_r(NULL, "\n", &rest))) {
		if (strcmp(line, "start") == 0) {
			container->may_start = true;
		} else if (strcmp(line, "delete") == 0) {
			container->may_delete = true;
		} else if (strncmp(line, "group /", 7) == 0 && container->group_count < MAX_GROUPS) {
			container->groups[container->group_count++] = line + 6;
		} else {
			return false;
		}
	}
	return container->pid > 0;
}

/* Of one that has been created to its end. */
static bool open_container(const char *root, const char *id, struct container *container)
{
	struct stat stat;

	memset(container, 0, sizeof(*container));
	if (!is_name(id))
		return false;
	container->id = id;
	container->root_fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (container->root_fd < 0)
		return false;
	container->fd = openat(container->root_fd, id, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	/* Nobody but its owner can have written what is in it. */
	if (container->fd < 0 || fstat(container->fd, &stat) < 0 || stat.st_uid != geteuid() || (stat.st_mode & 022))
		return false;
	return read_text(container->fd, "front", container->text, sizeof(container->text)) && parse_front(container);
}

/* proc(5), stat: the state, and field 22. The program's name, which comes second, may have blanks and brackets. */
static bool start_of(int pid, char *state, unsigned long long *ticks)
{
	char path[64];
	char text[2048];

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	if (!read_text(AT_FDCWD, path, text, sizeof(text)))
		return false;
	char *at = strrchr(text, ')');

	if (!at || at[1] != ' ' || at[2] == 0)
		return false;
	*state = at[2];
	at += 2;
	for (int field = 3; field < 22; field++) {
		at = strchr(at, ' ');
		if (!at)
			return false;
		at++;
	}
	*ticks = strtoull(at, NULL, 10);
	return true;
}

enum life { ALIVE, ENDED, UNKNOWN };

/* One that has ended and waits for its parent has ended. */
static enum life monitor_life(const struct container *container)
{
	char boot[64];
	char path[64];
	char state;
	unsigned long long ticks;
	struct stat stat;

	if (!read_text(AT_FDCWD, BOOT_ID_PATH, boot, sizeof(boot)))
		return UNKNOWN;
	boot[strcspn(boot, "\n")] = 0;
	if (strcmp(boot, container->boot) != 0)
		return UNKNOWN;
	snprintf(path, sizeof(path), "/proc/%d", container->pid);
	if (lstat(path, &stat) < 0)
		return errno == ENOENT ? ENDED : UNKNOWN;
	if (!start_of(container->pid, &state, &ticks))
		return UNKNOWN;
	return ticks != container->start_ticks || state == 'Z' || state == 'X' ? ENDED : ALIVE;
}

#endif
