/* Removes a container that has ended as it should: its monitor has removed what it had made, and what is left is its control
 * groups and a folder of files that are all known. Whatever else is found is for Node, which ends and removes what was left by
 * somebody who was killed; nothing that has been done by then hinders it. */
#ifndef VMLET_FRONT_DELETE_H
#define VMLET_FRONT_DELETE_H

#include <time.h>

#include "container.h"

#define DELETER "deleter.json"
/* For the kernel, which lets go of a group a moment after its last process. */
#define GROUP_TRIES 20
#define GROUP_RETRY_MS 1

static const char *const files[] = {"state.json", "config.json", "phase.json", "control.sock", "agent.sock", NULL};

static bool is_known(const char *name)
{
	for (const char *const *file = files; *file; file++)
		if (strcmp(name, *file) == 0)
			return true;
	return strcmp(name, "front") == 0 || strcmp(name, "share") == 0 || strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

static bool has_only_known(int folder)
{
	int fd = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *list = fd < 0 ? NULL : fdopendir(fd);
	bool result = list != NULL;
	struct dirent *entry;

	if (!list && fd >= 0)
		close(fd);
	while (list && (errno = 0, entry = readdir(list)))
		if (!is_known(entry->d_name))
			result = false;
	if (errno != 0)
		result = false;
	if (list)
		closedir(list);
	return result;
}

/* Others that delete it wait for whoever this file names: vmm/oci/delete.ts. */
static bool take_turn(const struct container *container)
{
	char state;
	unsigned long long ticks;
	char line[256];
	int fd;

	if (!start_of(getpid(), &state, &ticks))
		return false;
	int length = snprintf(line, sizeof(line), "{\"pid\":%d,\"startTicks\":%llu,\"boot\":\"%s\"}", getpid(), ticks,
			      container->boot);
	fd = openat(container->fd, DELETER, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return false;
	bool result = write(fd, line, (size_t)length) == length;

	close(fd);
	if (!result)
		unlinkat(container->fd, DELETER, 0);
	return result;
}

static bool remove_group(const char *path)
{
	for (int try = 0; try < GROUP_TRIES; try++) {
		if (rmdir(path) == 0 || errno == ENOENT)
			return true;
		if (errno != EBUSY)
			return false;
		nanosleep(&(struct timespec){.tv_nsec = GROUP_RETRY_MS * 1000000L}, NULL);
	}
	return false;
}

static bool remove_all(const struct container *container)
{
	for (int i = 0; i < container->group_count; i++)
		if (!remove_group(container->groups[i]))
			return false;
	if (unlinkat(container->fd, "share", AT_REMOVEDIR) < 0 && errno != ENOENT)
		return false;
	/* The record goes last: who is killed in between leaves a container that Node knows. */
	unlinkat(container->fd, "front", 0);
	for (const char *const *file = files + 1; *file; file++)
		unlinkat(container->fd, *file, 0);
	unlinkat(container->fd, files[0], 0);
	unlinkat(container->fd, DELETER, 0);
	return unlinkat(container->root_fd, container->id, AT_REMOVEDIR) == 0;
}

/* True: nothing is left of it. */
static bool remove_container(const struct container *container)
{
	if (monitor_life(container) != ENDED || !has_only_known(container->fd) || !take_turn(container))
		return false;
	if (remove_all(container))
		return true;
	unlinkat(container->fd, DELETER, 0);
	return false;
}

#endif
