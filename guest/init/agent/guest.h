/* Requests that are about the guest as a whole: its identity, its network, ports, mounts, its end. */
#ifndef VMLET_AGENT_GUEST_H
#define VMLET_AGENT_GUEST_H

#include <asm/errno.h>
#include <asm/fcntl.h>

#include "../hex.h"
#include "../network.h"
#include "../power.h"
#include "../template.h"
#include "../world.h"
#include "files.h"
#include "stream.h"
#include "task.h"

#define CLOCK_MONOTONIC 1
#define MIN_TRY_MS 5
#define MAX_TRY_MS 60000
/* As /proc/net/tcp has it. */
#define TCP_LISTEN "0A"
/* Of such a file; who has more sockets is asked too much. */
#define MAX_SOCKETS_BYTES (1 << 20)

static unsigned long now_ms(void)
{
	struct timespec64 time = { 0, 0 };

	call2(clock_gettime, CLOCK_MONOTONIC, &time);
	return (unsigned long)time.seconds * 1000 + (unsigned long)time.nanoseconds / 1000000;
}

/* A line is "  sl: ADDRESS:PORT ADDRESS:PORT STATE …", all in hexadecimal. */
static int is_listener(const char *line, unsigned port)
{
	unsigned value = 0;

	while (*line && *line != ':')
		line++;
	for (int blank = 0; *line && !blank; line++)
		blank = *line == ' ';
	while (*line && *line != ':')
		line++;
	if (*line)
		line++;
	for (; hex_value(*line) >= 0; line++)
		value = value * 16 + (unsigned)hex_value(*line);
	if (value != port || *line != ' ')
		return 0;
	line++;
	while (*line && *line != ' ')
		line++;
	return line[0] == ' ' && line[1] == TCP_LISTEN[0] && line[2] == TCP_LISTEN[1];
}

static int lists_listener(const char *path, unsigned port)
{
	static char bytes[4096];
	char line[256];
	size_t length = 0, total = 0;
	int found = 0;
	long fd = call3(open, path, O_RDONLY | O_CLOEXEC, 0), count;

	while (!found && fd >= 0 && total < MAX_SOCKETS_BYTES && (count = call3(read, fd, bytes, sizeof(bytes))) > 0) {
		total += (size_t)count;
		for (long i = 0; i < count && !found; i++) {
			if (bytes[i] != '\n') {
				if (length < sizeof(line) - 1)
					line[length++] = bytes[i];
				continue;
			}
			line[length] = 0;
			length = 0;
			found = is_listener(line, port);
		}
	}
	call1(close, fd);
	return found;
}

static void look_at_port(struct stream *stream)
{
	unsigned port = stream->port.request.port;

	if (lists_listener("/proc/net/tcp", port) || lists_listener("/proc/net/tcp6", port)) {
		finish_with(stream, 0, 0);
		return;
	}
	unsigned ms = stream->port.request.ms;

	stream->port.next = now_ms() + (ms < MIN_TRY_MS ? MIN_TRY_MS : ms > MAX_TRY_MS ? MAX_TRY_MS : ms);
}

static void handle_identity(struct stream *stream, const struct identity_request *request, const char *name)
{
	unsigned char seed[SEED_BYTES];
	long result = 0;

	memcpy(seed, request->seed, SEED_BYTES);
	if (request->flags & IDENTITY_SEED)
		result = reseed(seed);
	if (result == 0 && (request->flags & IDENTITY_CLOCK))
		result = set_clock((long)request->seconds, request->nanoseconds);
	if (result == 0 && (request->flags & IDENTITY_NAME))
		result = rename_guest(name);
	answer(stream, result);
}

static long sync_all(const char *unused)
{
	(void)unused;
	return call0(sync);
}

/* The strings of a mount lie one behind the other, with the flags as text before them. */
struct mount_words {
	unsigned flags;
	const char *words[4];
};

static struct mount_words mount_words;

static long mount_it(const char *unused)
{
	const char *target = mount_words.words[1];
	const char *data = mount_words.words[3];

	(void)unused;
	make_folders(target);
	return call5(mount, mount_words.words[0], target, mount_words.words[2], mount_words.flags, data[0] ? data : 0);
}

static long unmount_it(const char *unused)
{
	(void)unused;
	return call2(umount2, mount_words.words[0], mount_words.flags);
}

/* The words are copied: a child has no part in the agent's memory. */
static void handle_mount(struct stream *stream, unsigned flags, struct request_text *text, int count)
{
	static char copy[FRAME_PAYLOAD + 1];
	size_t length = (size_t)(text->end - text->at);
	struct request_text words = { copy, copy + length };

	memcpy(copy, text->at, length);
	mount_words.flags = flags;
	for (int i = 0; i < count; i++) {
		mount_words.words[i] = take_text(&words);
		if (!mount_words.words[i]) {
			fail_with(stream, -EINVAL, "the request is not a valid one");
			return;
		}
	}
	start_task(stream, count == 1 ? unmount_it : mount_it, "");
}

#endif
