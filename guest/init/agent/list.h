/* LIST: what a folder holds, made piece by piece, as the host's credit allows. */
#ifndef VMLET_AGENT_LIST_H
#define VMLET_AGENT_LIST_H

#include <linux/fcntl.h>
#include <linux/stat.h>

#include "../text.h"
#include "../world.h"
#include "files.h"
#include "stream.h"

/* Of a list's buffer, for what the kernel gives; the rest is for what is made of it. */
#define DIRENT_BYTES 1024
#define LIST_ENTRY sizeof(struct list_entry)
#define MAX_ENTRY (LIST_ENTRY + 256 + MAX_PATH)

struct list_entry {
	unsigned short length, name_length;
	struct file_status status;
} __attribute__((packed));

static void handle_list(struct stream *stream, unsigned flags, const char *path)
{
	long fd = call3(open, path, O_RDONLY | O_DIRECTORY | OPEN_FLAGS | (flags & PATH_FOLLOW ? 0 : O_NOFOLLOW), 0);

	stream->output = fd;
	stream->list.flags = flags;
	stream->list.at = stream->list.end = 0;
	if (fd >= 0)
		stream->buffer = new_memory(WINDOW);
	if (fd < 0 || !stream->buffer) {
		fail(stream, fd < 0 ? fd : -ENOMEM);
		return;
	}
	stream->buffer_head = stream->buffer_tail = DIRENT_BYTES;
}

/* Makes an entry at the end of what waits. */
static void add_entry(struct stream *stream, const struct dirent64 *found)
{
	char *start = stream->buffer + stream->buffer_head;
	struct list_entry *entry = (struct list_entry *)start;
	size_t name_length = length_of(found->name), length = LIST_ENTRY + name_length;
	struct file_status status = { .mode = (unsigned)found->type << 12, .inode = found->inode };

	if (!(stream->list.flags & LIST_NAMES) && look(stream->output, found->name, AT_SYMLINK_NOFOLLOW, &status) < 0)
		/* It has gone meanwhile. */
		return;
	entry->status = status;
	memcpy(start + LIST_ENTRY, found->name, name_length);
	if ((status.mode & S_IFMT) == S_IFLNK && !(stream->list.flags & LIST_NAMES)) {
		long count = call4(readlinkat, stream->output, found->name, start + length, MAX_PATH - 1);

		if (count > 0)
			length += (size_t)count;
	}
	entry->name_length = (unsigned short)name_length;
	entry->length = (unsigned short)length;
	stream->buffer_head += (unsigned)length;
}

/* What waits is sent, and more is made, until credit, room or this turn's share is used up. */
static void serve_list(struct stream *stream)
{
	for (unsigned sent = 0; sent < WINDOW;) {
		while (stream->list.at < stream->list.end && stream->buffer_head + MAX_ENTRY <= WINDOW) {
			const struct dirent64 *found = (const struct dirent64 *)(stream->buffer + stream->list.at);
			const char *name = found->name;

			stream->list.at += found->length;
			if (!(name[0] == '.' && (!name[1] || (name[1] == '.' && !name[2]))))
				add_entry(stream, found);
		}
		unsigned waiting = stream->buffer_head - stream->buffer_tail;

		/* Many small folders fill one frame better than many. */
		if (stream->list.at == stream->list.end && waiting < WINDOW / 2 && !stream->has_sent_end) {
			long count = call3(getdents64, stream->output, stream->buffer, DIRENT_BYTES);

			if (count < 0) {
				fail(stream, count);
				return;
			}
			stream->list.at = 0;
			stream->list.end = (unsigned)count;
			stream->has_sent_end = count == 0;
			continue;
		}
		unsigned limit = data_limit(stream->out_credit);

		if (limit > waiting)
			limit = waiting;
		if (limit) {
			send_frame(stream->id, FRAME_DATA, stream->buffer + stream->buffer_tail, limit);
			stream->out_credit -= limit;
			stream->buffer_tail += limit;
			sent += limit;
		}
		if (stream->buffer_tail == stream->buffer_head)
			stream->buffer_head = stream->buffer_tail = DIRENT_BYTES;
		else if (!limit)
			return;
		if (stream->has_sent_end && stream->buffer_tail == stream->buffer_head) {
			send_frame(stream->id, FRAME_END, 0, 0);
			finish_with(stream, 0, 0);
			return;
		}
	}
	is_busy = 1;
}

#endif
