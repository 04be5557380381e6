/* Requests on files. Each is one or few system calls, made at once; contents go piece by piece, and trees are removed by a
 * process of their own (tree.h). */
#ifndef VMLET_AGENT_FILES_H
#define VMLET_AGENT_FILES_H

#include <asm/errno.h>
#include <linux/fcntl.h>
#include <linux/stat.h>

#include "../execute.h"
#include "../text.h"
#include "../world.h"
#include "stream.h"
#include "task.h"
#include "tree.h"

#define TO_THE_END (~0UL)
#define SEEK_SET 0
#define NS_PER_S 1000000000L
#define UTIME_OMIT_NS ((1L << 30) - 2)
/* How open never waits, and never makes a terminal ours. */
#define OPEN_FLAGS (O_NONBLOCK | O_NOCTTY | O_CLOEXEC)

/* Names from the request at hand; each ends by NUL, and no more than `end`. */
struct request_text {
	const char *at, *end;
};

/* 0 if there is none. */
static const char *take_text(struct request_text *text)
{
	const char *start = text->at;

	while (text->at < text->end && *text->at)
		text->at++;
	if (text->at >= text->end)
		return 0;
	return text->at++ - start < MAX_PATH ? start : 0;
}

static const char *take_path(struct request_text *text)
{
	const char *path = take_text(text);

	return path && path[0] == '/' ? path : 0;
}

/* The words of an error number are the host's business; here is what it was about. */
static void fail(struct stream *stream, long error)
{
	const char *reason = reason_of(error);

	fail_with(stream, error, reason ? reason : "");
}

static void answer(struct stream *stream, long result)
{
	if (result < 0)
		fail(stream, result);
	else
		finish_with(stream, 0, 0);
}

static void describe(const struct statx *about, struct file_status *status)
{
	*status = (struct file_status){
		.mode = about->stx_mode, .uid = about->stx_uid, .gid = about->stx_gid, .links = about->stx_nlink,
		.size = about->stx_size, .inode = about->stx_ino, .seconds = (unsigned long)about->stx_mtime.tv_sec,
		.nanoseconds = about->stx_mtime.tv_nsec, .major = about->stx_rdev_major, .minor = about->stx_rdev_minor,
		.blocks = about->stx_blocks,
	};
}

static long look(long folder, const char *path, int flags, struct file_status *status)
{
	struct statx about;
	long result = call5(statx, folder, path, flags, STATX_BASIC_STATS, &about);

	if (result == 0)
		describe(&about, status);
	return result;
}

static int no_follow(unsigned flags)
{
	return flags & PATH_FOLLOW ? 0 : AT_SYMLINK_NOFOLLOW;
}

static void handle_stat(struct stream *stream, unsigned flags, const char *path)
{
	struct file_status status;
	long result = look(AT_FDCWD, path, no_follow(flags), &status);

	if (result < 0)
		fail(stream, result);
	else
		finish_with(stream, &status, sizeof(status));
}

static void handle_read(struct stream *stream, const struct read_request *request, const char *path)
{
	long fd = call3(open, path, O_RDONLY | OPEN_FLAGS | (request->flags & PATH_FOLLOW ? 0 : O_NOFOLLOW), 0);
	long result = fd;

	if (fd >= 0 && request->offset)
		result = call3(lseek, fd, request->offset, SEEK_SET);
	stream->output = fd;
	if (result < 0) {
		fail(stream, result);
		return;
	}
	stream->read.left = request->count;
	stream->ready = READY_OUTPUT;
}

static void serve_read(struct stream *stream)
{
	struct file_status status;
	long count = 0;

	if (!(stream->ready & READY_OUTPUT))
		return;
	if (stream->read.left) {
		count = pour(stream, stream->output, FRAME_DATA, &stream->out_credit, stream->read.left);
		if (count == -EAGAIN || count == -EINTR) {
			/* Without credit or room it stays ready. */
			if (stream->out_credit && !is_output_blocked)
				stream->ready = 0;
			return;
		}
		if (count < 0) {
			fail(stream, count);
			return;
		}
		if (stream->read.left != TO_THE_END)
			stream->read.left -= (unsigned long)count;
		if (count > 0 && stream->read.left) {
			is_busy |= stream->out_credit > 0;
			return;
		}
	}
	long result = look(stream->output, "", AT_EMPTY_PATH, &status);

	if (result < 0) {
		fail(stream, result);
		return;
	}
	send_frame(stream->id, FRAME_END, 0, 0);
	finish_with(stream, &status, sizeof(status));
}

static void handle_write(struct stream *stream, const struct write_request *request, const char *path)
{
	unsigned flags = request->flags;
	long fd = call3(open, path,
			O_WRONLY | OPEN_FLAGS | (flags & PATH_FOLLOW ? 0 : O_NOFOLLOW) | (flags & WRITE_CREATE ? O_CREAT : 0) |
				(flags & WRITE_EXCLUSIVE ? O_EXCL : 0) | (flags & WRITE_TRUNCATE ? O_TRUNC : 0) |
				(flags & WRITE_APPEND ? O_APPEND : 0),
			request->mode & 07777);
	long result = fd;

	if (fd >= 0 && request->offset && !(flags & WRITE_APPEND))
		result = call3(lseek, fd, request->offset, SEEK_SET);
	stream->input = fd;
	stream->write = *request;
	if (result < 0)
		fail(stream, result);
}

/* All has come and is written: what the file is to be besides. */
static void finish_write(struct stream *stream)
{
	const struct write_request *request = &stream->write;
	long result = 0;

	if (request->flags & WRITE_OWNER)
		result = call3(fchown, stream->input, request->uid, request->gid);
	if (result == 0 && (request->flags & WRITE_MODE))
		result = call2(fchmod, stream->input, request->mode & 07777);
	answer(stream, result);
}

static void take_file_input(struct stream *stream, const struct part *parts, int count, unsigned length)
{
	long written = 0;

	while (!stream->buffer && (unsigned long)written < length) {
		struct part rest[2] = { parts[0], parts[1] };
		size_t skipped = (size_t)written, first = skipped < rest[0].length ? skipped : rest[0].length;

		rest[0].at += first;
		rest[0].length -= first;
		rest[1].at += skipped - first;
		rest[1].length -= skipped - first;
		long result = call3(writev, stream->input, rest, count);

		if (result == -EAGAIN || result == -EINTR)
			break;
		if (result <= 0) {
			fail(stream, result ? result : -EIO);
			return;
		}
		written += result;
	}
	if (written > 0)
		give_credit(stream, (unsigned)written);
	if ((unsigned long)written < length && !keep_in_buffer(stream, parts, count, (size_t)written))
		fail(stream, -ENOMEM);
}

static void serve_write(struct stream *stream)
{
	if (stream->buffer && (stream->ready & READY_INPUT)) {
		long written = drain_buffer(stream);

		if (written > 0) {
			give_credit(stream, (unsigned)written);
		} else if (written != -EAGAIN && written != -EINTR) {
			fail(stream, written ? written : -EIO);
			return;
		}
	}
	if (stream->has_host_ended && !stream->buffer)
		finish_write(stream);
}

static void handle_mkdir(struct stream *stream, const struct folder_request *request, const char *path)
{
	char part[MAX_PATH];
	size_t length = 0;
	long result = -EEXIST;

	while (path[length]) {
		do
			part[length] = path[length], length++;
		while (path[length] && path[length] != '/');
		part[length] = 0;
		/* "//" and a slash at the end name nothing new. */
		int is_last = 1;

		for (const char *rest = path + length; *rest; rest++)
			is_last &= *rest == '/';
		if (!is_last && !(request->flags & MKDIR_PARENTS))
			continue;
		result = call2(mkdir, part, is_last ? request->mode & 07777 : 0755);
		if (is_last)
			break;
		if (result < 0 && result != -EEXIST && !is_folder(part)) {
			fail(stream, result);
			return;
		}
	}
	if (result < 0 && (request->flags & MKDIR_PARENTS) && is_folder(path))
		result = 0;
	else if (result == 0 && (request->flags & MKDIR_OWNER))
		result = call5(fchownat, AT_FDCWD, path, request->uid, request->gid, AT_SYMLINK_NOFOLLOW);
	answer(stream, result);
}

static void handle_remove(struct stream *stream, unsigned flags, const char *path)
{
	long result = call3(unlinkat, AT_FDCWD, path, 0);

	if (result == -EISDIR || result == -EPERM)
		result = call3(unlinkat, AT_FDCWD, path, AT_REMOVEDIR);
	if ((flags & REMOVE_TREE) && (result == -ENOTEMPTY || result == -EEXIST)) {
		start_task(stream, remove_tree, path);
		return;
	}
	answer(stream, result == -ENOENT && (flags & REMOVE_FORCE) ? 0 : result);
}

/* A mode is the file's, and a link has none: it is never followed unseen. */
static long set_mode(const char *path, unsigned mode, unsigned flags)
{
	struct file_status status;
	char name[40];
	long fd = call3(open, path, O_PATH | O_CLOEXEC | (flags & PATH_FOLLOW ? 0 : O_NOFOLLOW), 0), result = fd;

	if (fd < 0)
		return fd;
	result = look(fd, "", AT_EMPTY_PATH, &status);
	if (result == 0 && (status.mode & S_IFMT) == S_IFLNK)
		result = -EOPNOTSUPP;
	append_number(append(name, name + sizeof(name), "/proc/self/fd/"), name + sizeof(name), (unsigned long)fd);
	if (result == 0)
		result = call2(chmod, name, mode & 07777);
	call1(close, fd);
	return result;
}

static long set_size(const char *path, unsigned long size, unsigned flags)
{
	long fd = call3(open, path, O_WRONLY | OPEN_FLAGS | (flags & PATH_FOLLOW ? 0 : O_NOFOLLOW), 0);

	if (fd < 0)
		return fd;
	long result = call2(ftruncate, fd, size);

	call1(close, fd);
	return result;
}

static struct timespec64 time_of(unsigned long nanoseconds)
{
	long value = (long)nanoseconds, rest = value % NS_PER_S;

	if (nanoseconds == TIME_AS_IT_IS)
		return (struct timespec64){ 0, UTIME_OMIT_NS };
	if (rest < 0)
		rest += NS_PER_S;
	return (struct timespec64){ (value - rest) / NS_PER_S, rest };
}

static void handle_attributes(struct stream *stream, const struct attributes_request *request, const char *path)
{
	unsigned flags = request->flags;
	long result = 0;

	if (flags & SETATTR_SIZE)
		result = set_size(path, request->modified, flags);
	/* Before the mode: another owner takes a set-user-ID bit away. */
	if (result == 0 && (flags & SETATTR_OWNER))
		result = call5(fchownat, AT_FDCWD, path, request->uid, request->gid, no_follow(flags));
	if (result == 0 && (flags & SETATTR_MODE))
		result = set_mode(path, request->mode, flags);
	if (result == 0 && (flags & SETATTR_TIMES)) {
		struct timespec64 times[2] = { time_of(request->accessed), time_of(flags & SETATTR_SIZE ? TIME_AS_IT_IS : request->modified) };

		result = call4(utimensat, AT_FDCWD, path, times, no_follow(flags));
	}
	answer(stream, result);
}

static void handle_readlink(struct stream *stream, const char *path)
{
	char target[MAX_PATH];
	long count = call3(readlink, path, target, sizeof(target));

	if (count < 0)
		fail(stream, count);
	else
		finish_with(stream, target, (unsigned)count);
}

/* As makedev(3) has it. */
static unsigned long device_number(unsigned major, unsigned minor)
{
	return ((unsigned long)(major & ~0xfffU) << 32) | ((major & 0xfffUL) << 8) | ((unsigned long)(minor & ~0xffU) << 12) | (minor & 0xff);
}

#endif
