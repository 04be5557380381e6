/* Control groups of both versions: a group PARENT/ID in each hierarchy that has a controller of a --cgroup, its limits, and the way
 * into it. What else a group needs before it takes a process: Documentation/admin-guide/cgroup-v1/cpusets.rst, cgroup-v2.rst. */
#ifndef VMLET_LAUNCHER_CGROUP_H
#define VMLET_LAUNCHER_CGROUP_H

#include <sys/stat.h>

#include "lines.h"
#include "options.h"

#define MAX_GROUPS 16

struct hierarchy {
	char mount[PATH_MAX];
	/* The group's folder; -1: not made yet. */
	int fd;
};

struct groups {
	struct hierarchy list[MAX_GROUPS];
	int count;
	/* By the number of the --cgroup. */
	int of[MAX_VALUES];
};

static bool has_word(const char *list, const char *word, size_t length, const char *separators)
{
	while (*list) {
		size_t next = strcspn(list, separators);

		if (next == length && memcmp(list, word, length) == 0)
			return true;
		list += next + (list[next] != 0);
	}
	return false;
}

/* proc(5), mountinfo: blanks in a path are \040. */
static void decode_path(char *path)
{
	char *to = path;

	for (char *from = path; *from; to++) {
		bool is_coded = from[0] == '\\' && strspn(from + 1, "01234567") >= 3;

		*to = is_coded ? (char)((from[1] - '0') * 64 + (from[2] - '0') * 8 + from[3] - '0') : *from;
		from += is_coded ? 4 : 1;
	}
	*to = 0;
}

/* False: no hierarchy of that controller is mounted here. */
static bool find_hierarchy(int version, const char *controller, size_t length, char *mount)
{
	FILE *file = fopen("/proc/self/mountinfo", "re");
	char line[3 * PATH_MAX];
	char type[64];
	char options[1024];
	bool is_found = false;

	while (file && !is_found && fgets(line, sizeof(line), file)) {
		char *rest = strstr(line, " - ");

		if (!rest || sscanf(line, "%*s %*s %*s %*s %4095s", mount) != 1 ||
		    sscanf(rest, " - %63s %*s %1023s", type, options) != 2)
			continue;
		is_found = version == 2 ? strcmp(type, "cgroup2") == 0
					: strcmp(type, "cgroup") == 0 && has_word(options, controller, length, ",");
	}
	if (file)
		fclose(file);
	if (is_found)
		decode_path(mount);
	return is_found;
}

/* Before anything is made: is there a hierarchy for each limit? */
static void check_cgroups(const struct options *options, struct groups *groups)
{
	memset(groups, 0, sizeof(*groups));
	for (int at = 0; at < options->cgroups.count; at++) {
		const char *word = options->cgroups.values[at];
		char mount[PATH_MAX];
		int index = 0;

		if (!find_hierarchy(options->cgroup_version, word, strcspn(word, "."), mount))
			fail("--cgroup %s: no hierarchy of version %d has this controller here", word, options->cgroup_version);
		while (index < groups->count && strcmp(groups->list[index].mount, mount) != 0)
			index++;
		if (index == MAX_GROUPS)
			fail("--cgroup %s: more than %d hierarchies", word, MAX_GROUPS);
		if (index == groups->count) {
			strcpy(groups->list[index].mount, mount);
			groups->list[groups->count++].fd = -1;
		}
		groups->of[at] = index;
	}
}

/* Version 1: no process may enter a group without processors and memory nodes, and a new one has none. */
static void inherit_cpuset(int parent, int child)
{
	static const char *const names[] = {"cpuset.cpus", "cpuset.mems", NULL};
	char own[4096];
	char inherited[4096];

	for (const char *const *name = names; *name; name++)
		if (read_line(child, *name, own, sizeof(own)) && *own == 0 &&
		    read_line(parent, *name, inherited, sizeof(inherited)))
			write_line(child, *name, inherited);
}

/* Version 2: a group has the controllers that its parent gives away. */
static void give_controller(int parent, const char *word)
{
	char given[4096];
	const int length = (int)strcspn(word, ".");

	/* Files of the core are in every group. */
	if (strncmp(word, "cgroup.", 7) == 0 || !read_line(parent, "cgroup.subtree_control", given, sizeof(given)) ||
	    has_word(given, word, (size_t)length, " "))
		return;
	if (!write_line(parent, "cgroup.subtree_control", text_of("+%.*s", length, word)))
		fail("--cgroup %s: the controller cannot be had in groups below: %s", word, strerror(errno));
}

/* The next folder on the way to the group. */
static int step_into(int parent, const char *name, const struct options *options, const char *mount)
{
	if (mkdirat(parent, name, 0755) == 0)
		undo_push((struct undo){.folder = parent, .name = name, .flags = AT_REMOVEDIR});
	else if (errno != EEXIST)
		fail("control group %s/%s/%s: %s", mount, options->parent_cgroup, options->id, strerror(errno));
	int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	if (fd < 0)
		fail("control group %s/%s/%s: %s", mount, options->parent_cgroup, options->id, strerror(errno));
	return fd;
}

static int make_group(const struct options *options, const char *mount, const char *word)
{
	char *rest = NULL;
	char *path = text_of("%s/%s", options->parent_cgroup, options->id);
	int fd = open(mount, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		fail("%s: %s", mount, strerror(errno));
	/* Their parents' descriptors stay open for undo_all. */
	for (char *name = strtok_r(path, "/", &rest); name; name = strtok_r(NULL, "/", &rest)) {
		if (options->cgroup_version == 2)
			give_controller(fd, word);
		int next = step_into(fd, name, options, mount);

		if (options->cgroup_version == 1)
			inherit_cpuset(fd, next);
		fd = next;
	}
	return fd;
}

static void make_groups(const struct options *options, struct groups *groups)
{
	for (int at = 0; at < options->cgroups.count; at++) {
		const char *word = options->cgroups.values[at];
		const char *value = strchr(word, '=') + 1;
		struct hierarchy *group = &groups->list[groups->of[at]];

		/* Again for each: the next limit may need another controller. */
		if (group->fd < 0 || options->cgroup_version == 2)
			group->fd = make_group(options, group->mount, word);
		if (!write_line(group->fd, text_of("%.*s", (int)(value - 1 - word), word), value))
			fail("--cgroup %s: %s %s", word, group->mount,
			     errno == ENOENT ? "has no such file in its groups" : text_of("refuses it: %s", strerror(errno)));
	}
}

/* The last step that can be undone: a group with a process in it stays. */
static void enter_groups(const struct options *options, const struct groups *groups)
{
	for (int at = 0; at < groups->count; at++)
		if (!write_line(groups->list[at].fd, "cgroup.procs", "0"))
			fail("control group %s/%s/%s takes no process: %s", groups->list[at].mount, options->parent_cgroup,
			     options->id, strerror(errno));
	if (options->cgroups.count > 0 || options->cgroup_version == 1)
		return;
	/* Version 2 without limits: a group that somebody else has made, if it is there. */
	char mount[PATH_MAX];

	if (!find_hierarchy(2, "", 0, mount))
		fail("--cgroup-version 2: no hierarchy of version 2 is mounted here");
	char *path = text_of("%s/%s", mount, options->parent_cgroup);
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return;
	if (!write_line(fd, "cgroup.procs", "0"))
		fail("--parent-cgroup %s: %s takes no process: %s", options->parent_cgroup, path, strerror(errno));
	close(fd);
}

#endif
