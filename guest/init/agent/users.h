/* Users and groups by name or number, as the guest's own /etc/passwd and /etc/group have them. Only in a command's own
 * process: whatever these files are, nobody else waits for them. */
#ifndef VMLET_AGENT_USERS_H
#define VMLET_AGENT_USERS_H

#include <linux/fcntl.h>
#include <linux/stat.h>

#include "../execute.h"
#include "../text.h"

#define MAX_LINE 4096
/* Of either file; what is behind is not looked at. */
#define MAX_LIST (4 << 20)
#define MAX_GROUPS 1024
#define MAX_NAME 256
/* As Docker has it. */
#define MAX_ID 0x7fffffffU

struct user {
	unsigned uid, gid;
	char name[MAX_NAME], home[MAX_PATH];
	unsigned groups[MAX_GROUPS], group_count;
};

struct line_reader {
	long fd;
	size_t at, end, total;
	char bytes[MAX_LINE], line[MAX_LINE];
};

static int open_lines(struct line_reader *reader, const char *path)
{
	struct statx about;

	reader->at = reader->end = reader->total = 0;
	/* Neither a pipe nor a device makes it wait. */
	reader->fd = call3(open, path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0);
	if (reader->fd < 0)
		return 0;
	if (call5(statx, reader->fd, "", AT_EMPTY_PATH, STATX_TYPE, &about) == 0 && (about.stx_mode & S_IFMT) == S_IFREG)
		return 1;
	call1(close, reader->fd);
	return 0;
}

/* The next line, without its end; one that is too long is left out. False at the end of the file. */
static int next_line(struct line_reader *reader)
{
	size_t length = 0;

	for (;;) {
		if (reader->at == reader->end) {
			long count = reader->total < MAX_LIST ? call3(read, reader->fd, reader->bytes, MAX_LINE) : 0;

			if (count <= 0)
				break;
			reader->total += (size_t)count;
			reader->at = 0;
			reader->end = (size_t)count;
		}
		char c = reader->bytes[reader->at++];

		if (c != '\n') {
			if (length < MAX_LINE)
				reader->line[length++] = c;
			continue;
		}
		if (length < MAX_LINE) {
			reader->line[length] = 0;
			return 1;
		}
		length = 0;
	}
	reader->line[length < MAX_LINE ? length : 0] = 0;
	/* A last line without an end. */
	if (length == 0 || length >= MAX_LINE)
		return 0;
	reader->total = MAX_LIST;
	reader->at = reader->end = 0;
	return 1;
}

/* Cuts the line at its colons; how many fields there are. */
static int split_line(char *line, char **fields, int most)
{
	int count = 0;

	while (count < most) {
		fields[count++] = line;
		while (*line && *line != ':')
			line++;
		if (!*line)
			break;
		*line++ = 0;
	}
	return count;
}

/* By name first, as others do it; then by number, which need not be in the list. */
static int find_user(struct user *user, const char *name)
{
	static struct line_reader reader;
	char *fields[7];
	unsigned wanted = 0;
	int is_number = read_number(name, &wanted), found = 0;

	user->home[0] = user->name[0] = 0;
	if (open_lines(&reader, "/etc/passwd")) {
		while (next_line(&reader)) {
			unsigned uid, gid;

			if (split_line(reader.line, fields, 7) < 6 || !read_number(fields[2], &uid) || !read_number(fields[3], &gid))
				continue;
			int is_named = is_same(fields[0], name);

			if (!is_named && (found || !is_number || uid != wanted))
				continue;
			user->uid = uid;
			user->gid = gid;
			append(user->name, user->name + MAX_NAME, fields[0]);
			append(user->home, user->home + MAX_PATH, fields[5]);
			found = 1;
			if (is_named)
				break;
		}
		call1(close, reader.fd);
	}
	if (!found && is_number) {
		user->uid = wanted;
		user->gid = 0;
		found = 1;
	}
	return found;
}

static int find_group(const char *name, unsigned *gid)
{
	static struct line_reader reader;
	char *fields[4];
	int found = 0;

	if (open_lines(&reader, "/etc/group")) {
		while (!found && next_line(&reader))
			if (split_line(reader.line, fields, 4) >= 3 && is_same(fields[0], name))
				found = read_number(fields[2], gid);
		call1(close, reader.fd);
	}
	return found || read_number(name, gid);
}

static void add_group(struct user *user, unsigned gid)
{
	for (unsigned i = 0; i < user->group_count; i++)
		if (user->groups[i] == gid)
			return;
	if (user->group_count < MAX_GROUPS)
		user->groups[user->group_count++] = gid;
}

/* The groups that name the user as a member. */
static void add_groups_of(struct user *user)
{
	static struct line_reader reader;
	char *fields[4];

	if (!user->name[0] || !open_lines(&reader, "/etc/group"))
		return;
	while (next_line(&reader)) {
		unsigned gid;

		if (split_line(reader.line, fields, 4) < 4 || !read_number(fields[2], &gid))
			continue;
		for (char *member = fields[3]; *member;) {
			char *end = member;

			while (*end && *end != ',')
				end++;
			char last = *end;

			*end = 0;
			if (is_same(member, user->name))
				add_group(user, gid);
			member = end + (last != 0);
		}
	}
	call1(close, reader.fd);
}

/* NAME, UID, NAME:GROUP, UID:GID and what lies between. The name of what there is not, or 0. */
static const char *resolve_user(struct user *user, const char *text)
{
	static char name[MAX_NAME], group[MAX_NAME];
	size_t length = 0;

	user->uid = user->gid = user->group_count = 0;
	for (; text[length] && text[length] != ':'; length++)
		if (length < MAX_NAME - 1)
			name[length] = text[length];
	name[length < MAX_NAME ? length : MAX_NAME - 1] = 0;
	append(group, group + MAX_NAME, text[length] ? text + length + 1 : "");
	if (!find_user(user, name[0] ? name : "0"))
		return name;
	if (group[0] && !find_group(group, &user->gid))
		return group;
	/* As Docker has it: nobody comes into files of his own group by not being in it. */
	add_group(user, user->gid);
	if (!group[0])
		add_groups_of(user);
	return 0;
}

/* UID:GID as they are, and in no group. The lists are files of the container's: through a share, each takes its time. */
static const char *resolve_exactly(struct user *user, const char *text, int needs_home)
{
	static char number[MAX_NAME];
	unsigned uid, gid;
	size_t length = 0;

	for (; text[length] && text[length] != ':' && length < MAX_NAME - 1; length++)
		number[length] = text[length];
	number[length] = 0;
	if (text[length] != ':' || !read_number(number, &uid) || !read_number(text + length + 1, &gid))
		return resolve_user(user, text);
	user->home[0] = user->name[0] = 0;
	user->group_count = 0;
	if (needs_home)
		find_user(user, number);
	user->uid = uid;
	user->gid = gid;
	return 0;
}

#endif
