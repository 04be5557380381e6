/* Commands: from EXEC to DONE, as the agent sees them. */
#ifndef VMLET_AGENT_COMMAND_H
#define VMLET_AGENT_COMMAND_H

#include <asm/errno.h>
#include <asm/ioctls.h>
#include <asm/signal.h>
#include <asm/termbits.h>
#include <linux/fcntl.h>

#include "../watch.h"
#include "../world.h"
#include "session.h"
#include "spawn.h"
#include "stream.h"

#define MAX_SIGNAL 64
/* Then others have their turn. */
#define DATA_FRAMES_A_TURN 8

struct terminal_size {
	unsigned short rows, columns, x_pixels, y_pixels;
};

static void set_terminal_size(struct stream *stream, unsigned short rows, unsigned short columns)
{
	struct terminal_size size = { rows, columns, 0, 0 };

	call3(ioctl, stream->output, TIOCSWINSZ, &size);
}

/* Our end becomes input and output of the stream, and its name is for the command. 0, or an error. */
static long open_terminal_pair(struct stream *stream, char *name, const char *end)
{
	int number = 0, unlocked = 0;
	long fd = call3(open, "/dev/ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC, 0);

	if (fd < 0)
		return fd;
	call3(ioctl, fd, TIOCSPTLCK, &unlocked);
	call3(ioctl, fd, TIOCGPTN, &number);
	append_number(append(name, end, "/dev/pts/"), end, (unsigned)number);
	/* Held open until the command ends: between two programs that have it open it must not look as if it had gone. */
	stream->terminal = call3(open, name, O_RDWR | O_NOCTTY | O_CLOEXEC, 0);
	if (stream->terminal < 0) {
		call1(close, fd);
		return stream->terminal;
	}
	stream->output = fd;
	stream->input = call3(fcntl, fd, F_DUPFD_CLOEXEC, 0);
	return stream->input < 0 ? stream->input : 0;
}

/* Whoever comes now may want to trace what runs. */
static void stop_watching_all(void)
{
	for (unsigned i = 0; i < streams_end; i++) {
		struct stream *stream = &agent->streams[i];

		if (stream->kind != STREAM_FREE && stream->watched && stream->pid > 0)
			stop_watching(stream->pid);
	}
}

static void start_command(struct stream *stream, const char *payload, unsigned length)
{
	const struct exec_request *request = (const struct exec_request *)payload;
	struct newcomer newcomer;

	if (length < sizeof(*request) || (request->flags & ~(unsigned)EXEC_FLAGS)) {
		fail_with(stream, -EINVAL, "the request is not a valid one");
		return;
	}
	if ((request->flags & EXEC_HOLD) && link.kind != LINK_CHANNEL) {
		fail_with(stream, -EOPNOTSUPP, "only over the command channel a program can be held");
		return;
	}
	stop_watching_all();
	long result = take_newcomer(&newcomer);

	if (result != 0) {
		fail_with(stream, result, "the guest has no room for another process");
		return;
	}
	stream->flags = (unsigned char)request->flags;
	stream->pid = newcomer.pid;
	stream->told_pid = (unsigned)newcomer.pid;
	stream->report = newcomer.request;
	stream->start = newcomer.start;
	stream->input = newcomer.input;
	stream->output = newcomer.output;
	stream->error = newcomer.error;
	stream->start->terminal[0] = 0;
	stream->start->successor = stream->start->ends_guest = 0;
	if (request->flags & EXEC_TERMINAL) {
		char *name = stream->start->terminal;

		close_descriptor(&stream->input);
		close_descriptor(&stream->output);
		close_descriptor(&stream->error);
		result = open_terminal_pair(stream, name, name + sizeof(stream->start->terminal));
		if (result != 0) {
			/* Its request's end lets the process go. */
			drop_start(stream->start);
			fail_with(stream, result, "the guest has no terminal for it");
			return;
		}
		if (request->rows)
			set_terminal_size(stream, request->rows, request->columns);
	}
	if ((request->flags & EXEC_NO_INPUT) && !(request->flags & EXEC_TERMINAL))
		close_descriptor(&stream->input);
	if (request->flags & EXEC_MERGED)
		close_descriptor(&stream->error);
	append(stream->start->host_name, stream->start->host_name + sizeof(stream->start->host_name), host_name);
	stream->start->length = length;
	memcpy(stream->start->payload, payload, length);
	call3(write, stream->report, "", 1);
}

static void send_end(struct stream *stream, enum frame_type type)
{
	unsigned char *sent = type == FRAME_DATA ? &stream->has_sent_end : &stream->has_sent_end2;
	static const char which = 2;

	if (*sent)
		return;
	*sent = 1;
	send_frame(stream->id, FRAME_END, &which, type == FRAME_DATA2);
}

/* Nobody reads it any more. */
static void close_command_input(struct stream *stream, int tells)
{
	if (stream->input < 0)
		return;
	close_descriptor(&stream->input);
	drop_buffer(stream);
	if (tells)
		send_frame(stream->id, FRAME_CLOSED, 0, 0);
}

/* All has been written, and nothing follows: the pipe is closed, or the terminal gets its character for that. */
static void end_command_input(struct stream *stream)
{
	struct termios modes;
	char ends[2];

	if (stream->input < 0)
		return;
	if (stream->flags & EXEC_TERMINAL && call3(ioctl, stream->input, TCGETS, &modes) == 0) {
		ends[0] = ends[1] = (char)modes.c_cc[VEOF];
		/* The first one only ends a line that is not ended yet. */
		call3(write, stream->input, ends, stream->is_line_open && (modes.c_lflag & ICANON) ? 2 : 1);
	}
	close_descriptor(&stream->input);
}

static void note_last_byte(struct stream *stream, const struct part *parts, int count)
{
	const struct part *last = &parts[count - 1];

	if (count > 1 && !last->length)
		last--;
	if (last->length)
		stream->is_line_open = last->at[last->length - 1] != '\n' && last->at[last->length - 1] != '\r';
}

/* Input from the host: as much as the pipe takes goes straight into it. False without memory for the rest. */
static int take_command_input(struct stream *stream, const struct part *parts, int count, unsigned length)
{
	long written = -EAGAIN;

	if (stream->input < 0)
		/* Dropped; the host is told by CLOSED, or by DONE. */
		return 1;
	note_last_byte(stream, parts, count);
	/* A key that is a signal would find nobody at a terminal whose program has not begun. */
	if (!stream->buffer && (stream->has_begun || !(stream->flags & EXEC_TERMINAL)))
		written = call3(writev, stream->input, parts, count);
	if (written < 0 && written != -EAGAIN && written != -EINTR) {
		close_command_input(stream, 1);
		return 1;
	}
	if (written < 0)
		written = 0;
	if (written > 0)
		give_credit(stream, (unsigned)written);
	if ((unsigned long)written < length)
		enlarge_pipe(stream->input, &stream->has_large_input);
	return (unsigned long)written == length || keep_in_buffer(stream, parts, count, (size_t)written);
}

static void feed_command(struct stream *stream)
{
	if (stream->input < 0)
		return;
	if (stream->ready & INPUT_GONE && !(stream->flags & EXEC_TERMINAL)) {
		close_command_input(stream, 1);
		return;
	}
	if (stream->buffer && (stream->ready & READY_INPUT)) {
		long written = drain_buffer(stream);

		if (written > 0)
			give_credit(stream, (unsigned)written);
		else if (written < 0 && written != -EAGAIN && written != -EINTR)
			close_command_input(stream, 1);
	}
	if (stream->has_host_ended && !stream->buffer)
		end_command_input(stream);
}

/* Its process may have a successor, which is the command from then on. */
static void follow_successor(struct stream *stream)
{
	if (!stream->start || !stream->start->successor || stream->has_process_ended)
		return;
	if (stream->pid != stream->start->successor)
		stream->predecessor = stream->pid;
	stream->pid = stream->start->successor;
	stream->told_pid = (unsigned)stream->pid;
}

/* What the process says of its start. False if it has failed, and the stream is closed. */
static int hear_of_start(struct stream *stream)
{
	char word;

	/* One that is held has been executed, and has not begun: look_at_process tells when. */
	if ((stream->flags & EXEC_HOLD) && !stream->has_begun && !stream->has_process_ended)
		return 1;
	long count = call3(read, stream->report, &word, 1);

	follow_successor(stream);
	close_descriptor(&stream->report);
	int is_watched = stream->start->ends_guest && !(stream->flags & EXEC_HOLD) && !stream->has_process_ended;

	if (count == 1) {
		send_failure(stream->id, -stream->start->refusal.error, stream->start->refusal.text);
		leave_start(stream->start);
		close_stream(stream);
		return 0;
	}
	leave_start(stream->start);
	stream->start = 0;
	stream->has_begun = 1;
	send_frame(stream->id, FRAME_STARTED, &stream->told_pid, sizeof(stream->told_pid));
	if (is_watched && stream->pid > 0) {
		stream->watched = watch_program(stream->pid);
		stream->program = open_of_process(stream->pid, "/exe", O_PATH);
	}
	return 1;
}

static void end_output(struct stream *stream, long *fd, enum frame_type type)
{
	close_later(fd);
	send_end(stream, type);
}

/* Moves what one descriptor gives. `left` bounds it once the process has ended. */
static void move_command_output(struct stream *stream, long *fd, enum frame_type type, unsigned *credit, int *left,
				int *is_large)
{
	int frames = 0;

	for (;;) {
		long count = pour(stream, *fd, type, credit, stream->has_process_ended && left ? (unsigned long)*left : WINDOW);

		if (count == -EAGAIN || count == -EINTR) {
			/* A terminal that is empty once its session has gone. */
			if (!left && stream->has_process_ended && *credit && !is_output_blocked)
				break;
			return;
		}
		if (count <= 0)
			break;
		if (count == FRAME_PAYLOAD)
			enlarge_pipe(*fd, is_large);
		if (!stream->has_process_ended && (count < FRAME_PAYLOAD || ++frames == DATA_FRAMES_A_TURN))
			return;
		if (left && (*left -= (int)count) == 0)
			break;
	}
	end_output(stream, fd, type);
}

/* The process has been reaped: what it had written by then is still sent, and then all is said. */
static void finish_command(struct stream *stream)
{
	int is_terminal = stream->flags & EXEC_TERMINAL;

	if (!stream->is_drained) {
		stream->is_drained = 1;
		close_command_input(stream, 0);
		close_descriptor(&stream->terminal);
		if (!is_terminal) {
			if (stream->output >= 0 &&
			    (call3(ioctl, stream->output, FIONREAD, &stream->output_left) != 0 || !stream->output_left))
				close_later(&stream->output);
			if (stream->error >= 0 && (call3(ioctl, stream->error, FIONREAD, &stream->error_left) != 0 || !stream->error_left))
				close_later(&stream->error);
		}
	}
	if (stream->output >= 0)
		move_command_output(stream, &stream->output, FRAME_DATA, &stream->out_credit, is_terminal ? 0 : &stream->output_left,
				    &stream->has_large_output);
	if (stream->error >= 0)
		move_command_output(stream, &stream->error, FRAME_DATA2, &stream->error_credit, &stream->error_left,
				    &stream->has_large_error);
	if (stream->output >= 0 || stream->error >= 0)
		return;
	struct exec_result result = { (unsigned)(stream->status >> 8) & 0xff, (unsigned)stream->status & 0x7f, 0 };

	send_end(stream, FRAME_DATA);
	send_end(stream, FRAME_DATA2);
	finish_with(stream, &result, sizeof(result));
}

/* One turn. */
static void serve_command(struct stream *stream)
{
	if (stream->report >= 0 && ((stream->ready & READY_REPORT) || stream->has_process_ended) && !hear_of_start(stream))
		return;
	feed_command(stream);
	if (!(stream->flags & EXEC_TERMINAL)) {
		if (stream->ready & OUTPUT_GONE)
			end_output(stream, &stream->output, FRAME_DATA);
		if (stream->ready & ERROR_GONE)
			end_output(stream, &stream->error, FRAME_DATA2);
	}
	if (!stream->has_process_ended) {
		if (stream->output >= 0 && (stream->ready & READY_OUTPUT))
			move_command_output(stream, &stream->output, FRAME_DATA, &stream->out_credit, &stream->output_left,
					    &stream->has_large_output);
		if (stream->error >= 0 && (stream->ready & READY_ERROR))
			move_command_output(stream, &stream->error, FRAME_DATA2, &stream->error_credit, &stream->error_left,
					    &stream->has_large_error);
	} else {
		finish_command(stream);
	}
}

/* The host has gone, the command goes on: what it writes is dropped, what it has not read is still there. */
static void detach_command(struct stream *stream)
{
	follow_successor(stream);
	stream->kind = STREAM_DETACHED;
	/* No stream of a host's has this number. */
	stream->id = 0;
	close_descriptor(&stream->report);
	drop_start(stream->start);
	stream->start = 0;
}

static void serve_detached(struct stream *stream)
{
	static char dropped[4096];

	if (stream->has_process_ended) {
		close_stream(stream);
		return;
	}
	if (stream->buffer && (stream->ready & READY_INPUT) && drain_buffer(stream) < 0)
		close_command_input(stream, 0);
	if ((stream->ready & READY_OUTPUT) && call3(read, stream->output, dropped, sizeof(dropped)) == 0)
		close_descriptor(&stream->output);
	if ((stream->ready & READY_ERROR) && call3(read, stream->error, dropped, sizeof(dropped)) == 0)
		close_descriptor(&stream->error);
}

/* Of a program that has been held. */
static void let_begin(struct stream *stream)
{
	stream->waits_for_word = 0;
	stream->has_begun = 1;
	/* Before it takes the processor: whoever waits for its start need not wait for more. */
	hear_of_start(stream);
	flush_link();
	stream->watched = begin_watched(stream->pid);
}

static void signal_command(struct stream *stream, unsigned number, unsigned whom)
{
	follow_successor(stream);
	if (!number && stream->waits_for_word) {
		let_begin(stream);
		return;
	}
	if (stream->pid > 0 && number <= MAX_SIGNAL)
		call2(kill, whom ? -stream->pid : stream->pid, number);
}

/* Ends the process and its group; the rest of its session follows. */
static void kill_command(struct stream *stream)
{
	follow_successor(stream);
	if (stream->pid <= 0)
		return;
	call2(kill, -stream->pid, SIGKILL);
	call2(kill, stream->pid, SIGKILL);
	if (stream->has_begun && doomed_count < MAX_STREAMS)
		doomed[doomed_count++] = (unsigned)stream->pid;
}

#endif
