/* The streams that are open, and the frames that go out. */
#ifndef VMLET_AGENT_STREAM_H
#define VMLET_AGENT_STREAM_H

#include "link.h"
#include "protocol.h"

/* Room that DATA leaves in the ring of output: what ends streams must never wait behind what fills them. */
#define CONTROL_ROOM 8192U
/* All that the answer to one frame may need, and all that one stream's turn may need besides its DATA. */
#define ANSWER_ROOM 5120U
#define TURN_ROOM 2048U
#define MAX_FAILURE 1024U
/* Consumed, and not yet told: told in pieces of half a window, no frame for every byte. */
#define CREDIT_PIECE (WINDOW / 2)

/* Detached: a command that goes on without the host that has started it. */
enum stream_kind {
	STREAM_FREE, STREAM_COMMAND, STREAM_DETACHED, STREAM_READ, STREAM_LIST, STREAM_WRITE, STREAM_PORT, STREAM_TASK
};

/* What a descriptor is ready for. */
#define READY_REPORT 1
#define READY_INPUT 2
#define READY_OUTPUT 4
#define READY_ERROR 8
#define INPUT_GONE 16
/* Nothing is left in it, and the last writer has gone. */
#define OUTPUT_GONE 32
#define ERROR_GONE 64

struct start;

struct stream {
	unsigned id;
	unsigned char kind, ready, flags, has_host_ended;
	/* How much the host may still send; how much of what it has sent is consumed. */
	unsigned in_credit, in_owed;
	/* How much of DATA and of DATA2 may still be sent. */
	unsigned out_credit, error_credit;
	/* Of a command, or of a task; 0 once it has been reaped. What the host was told does not change. */
	long pid;
	unsigned told_pid;
	/* Whose place it has taken (namespaces.h), and who ends at once. */
	long predecessor;
	int status;
	unsigned char waits_for_word, has_begun, has_process_ended, is_cancelled, has_sent_end, has_sent_end2, is_drained;
	/* Its end will be heard of early, and it may have so many signals until then (watch.h); or 0. */
	unsigned char watched;
	/* The last byte that a terminal was given ends a line. */
	unsigned char is_line_open;
	/* Its pipes have been made larger. */
	int has_large_input, has_large_output, has_large_error;
	/* -1 if closed. `input` is what is written to, `output` and `error` what is read from. */
	long report, input, output, error, terminal;
	/* What is executed: a shared folder's would be dropped from memory, page by page, before the process has ended. */
	long program;
	/* What the command had written before its end, and has not been read yet. */
	int output_left, error_left;
	/* Until the command has begun: what its process reads its request from. */
	struct start *start;
	/* What has come, and cannot be written yet: a ring of WINDOW bytes. Of a list: entries that wait. */
	char *buffer;
	unsigned buffer_head, buffer_tail;
	union {
		struct {
			unsigned long left;
		} read;
		struct write_request write;
		struct {
			unsigned at, end;
			unsigned flags;
		} list;
		struct {
			struct port_request request;
			/* When it is looked at again, ms. */
			unsigned long next;
		} port;
	};
};

struct agent {
	struct stream streams[MAX_STREAMS];
	char payload[FRAME_PAYLOAD + 1];
};

static struct agent *agent;
/* Streams that are not free lie before this one. */
static unsigned streams_end;
/* Something waits for room in the ring of output. */
static int is_output_blocked;
/* A stream has more to do than one turn allows. */
static int is_busy;

static struct stream *find_stream(unsigned id)
{
	for (unsigned i = 0; i < streams_end; i++)
		if (agent->streams[i].kind != STREAM_FREE && agent->streams[i].id == id)
			return &agent->streams[i];
	return 0;
}

/* 0 if there are as many as there may be. */
static struct stream *new_stream(unsigned id, enum stream_kind kind)
{
	for (unsigned i = 0; i < MAX_STREAMS; i++) {
		struct stream *stream = &agent->streams[i];

		if (stream->kind != STREAM_FREE)
			continue;
		*stream = (struct stream){ .id = id, .kind = (unsigned char)kind, .in_credit = WINDOW,
			.out_credit = WINDOW, .error_credit = WINDOW,
			.report = -1, .input = -1, .output = -1, .error = -1, .terminal = -1,
			.program = -1 };
		if (i >= streams_end)
			streams_end = i + 1;
		return stream;
	}
	return 0;
}

static void close_descriptor(long *fd)
{
	if (*fd >= 0)
		call1(close, *fd);
	*fd = -1;
}

static void drop_buffer(struct stream *stream)
{
	if (stream->buffer)
		call2(munmap, stream->buffer, WINDOW);
	stream->buffer = 0;
	stream->buffer_head = stream->buffer_tail = 0;
}

/* What nobody waits for: closed once the host has been told all that there is to tell. */
static long leavings[32];
static unsigned leavings_count;

static void close_later(long *fd)
{
	if (*fd >= 0 && leavings_count < sizeof(leavings) / sizeof(leavings[0]))
		leavings[leavings_count++] = *fd;
	else
		close_descriptor(fd);
	*fd = -1;
}

static void close_leavings(void)
{
	while (leavings_count > 0)
		call1(close, leavings[--leavings_count]);
}

static void close_stream(struct stream *stream)
{
	close_later(&stream->report);
	close_later(&stream->input);
	close_later(&stream->output);
	close_later(&stream->error);
	close_later(&stream->terminal);
	close_later(&stream->program);
	drop_buffer(stream);
	stream->kind = STREAM_FREE;
	while (streams_end > 0 && agent->streams[streams_end - 1].kind == STREAM_FREE)
		streams_end--;
}

/* The caller has seen to the room. */
static void send_parts(unsigned stream, enum frame_type type, const void *first, unsigned first_length, const void *rest,
		       unsigned rest_length)
{
	struct frame frame = { first_length + rest_length, stream, (unsigned char)type, { 0 } };
	unsigned at = *link.output.head;

	if (link.state != LINK_UP)
		return;
	ring_write(&link.output, at, &frame, FRAME_HEADER);
	ring_write(&link.output, at + FRAME_HEADER, first, first_length);
	ring_write(&link.output, at + FRAME_HEADER + first_length, rest, rest_length);
	*link.output.head = at + FRAME_HEADER + frame.length;
	link.has_put = 1;
}

static void send_frame(unsigned stream, enum frame_type type, const void *payload, unsigned length)
{
	send_parts(stream, type, payload, length, 0, 0);
}

static void send_failure(unsigned stream, long error, const char *text)
{
	unsigned number = (unsigned)-error;
	size_t length = length_of(text);

	send_parts(stream, FRAME_FAILED, &number, sizeof(number), text, length > MAX_FAILURE ? MAX_FAILURE : (unsigned)length);
}

static void finish_with(struct stream *stream, const void *payload, unsigned length)
{
	send_frame(stream->id, FRAME_DONE, payload, length);
	close_stream(stream);
}

static void fail_with(struct stream *stream, long error, const char *text)
{
	send_failure(stream->id, error, text);
	close_stream(stream);
}

/* So much of what the host has sent is consumed. */
static void give_credit(struct stream *stream, unsigned bytes)
{
	stream->in_owed += bytes;
	if (stream->in_owed < CREDIT_PIECE || stream->has_host_ended)
		return;
	struct credit credit = { 1, { 0 }, stream->in_owed };

	stream->in_credit += stream->in_owed;
	stream->in_owed = 0;
	send_frame(stream->id, FRAME_CREDIT, &credit, sizeof(credit));
}

/* What may be sent of DATA or DATA2 now. */
static unsigned data_limit(unsigned credit)
{
	unsigned room = ring_room(&link.output);

	if (credit > FRAME_PAYLOAD)
		credit = FRAME_PAYLOAD;
	if (credit && room <= CONTROL_ROOM + FRAME_HEADER) {
		is_output_blocked = 1;
		return 0;
	}
	room -= room < CONTROL_ROOM + FRAME_HEADER ? room : CONTROL_ROOM + FRAME_HEADER;
	return room < credit ? room : credit;
}

/* One read of `fd`, straight into the ring behind the frame's header; what read(2) gives. -EAGAIN without credit or room. */
static long pour(struct stream *stream, long fd, enum frame_type type, unsigned *credit, unsigned long most)
{
	struct frame frame = { 0, stream->id, (unsigned char)type, { 0 } };
	unsigned limit = data_limit(*credit), at = *link.output.head;
	struct part parts[2];

	if (limit > most)
		limit = (unsigned)most;
	if (!limit)
		return -EAGAIN;
	long count = call3(readv, fd, parts, ring_parts(&link.output, at + FRAME_HEADER, limit, parts));

	if (count <= 0)
		return count;
	frame.length = (unsigned)count;
	*credit -= frame.length;
	ring_write(&link.output, at, &frame, FRAME_HEADER);
	*link.output.head = at + FRAME_HEADER + frame.length;
	link.has_put = 1;
	return count;
}

/* One write of what waits in the buffer; what write(2) gives. */
static long drain_buffer(struct stream *stream)
{
	unsigned waiting = stream->buffer_head - stream->buffer_tail, start = stream->buffer_tail % WINDOW;
	struct part parts[2] = { { stream->buffer + start, waiting }, { stream->buffer, 0 } };

	if (start + waiting > WINDOW) {
		parts[0].length = WINDOW - start;
		parts[1].length = waiting - parts[0].length;
	}
	long count = call3(writev, stream->input, parts, parts[1].length ? 2 : 1);

	if (count > 0)
		stream->buffer_tail += (unsigned)count;
	if (stream->buffer_tail == stream->buffer_head)
		drop_buffer(stream);
	return count;
}

/* Keeps what cannot be written yet. There is room: the host keeps to its credit. False without memory. */
static int keep_in_buffer(struct stream *stream, const struct part *parts, int count, size_t skipped)
{
	if (!stream->buffer)
		stream->buffer = new_memory(WINDOW);
	if (!stream->buffer)
		return 0;
	for (int i = 0; i < count; i++) {
		const char *from = parts[i].at;
		size_t length = parts[i].length, drop = skipped < length ? skipped : length;

		skipped -= drop;
		from += drop;
		length -= drop;
		while (length > 0) {
			unsigned start = stream->buffer_head % WINDOW;
			size_t piece = WINDOW - start < length ? WINDOW - start : length;

			memcpy(stream->buffer + start, from, piece);
			stream->buffer_head += (unsigned)piece;
			from += piece;
			length -= piece;
		}
	}
	return 1;
}

#endif
