/* The agent: one loop, in which nothing waits but the loop itself, for whatever comes first. docs/agent-protocol.md. */
#ifndef VMLET_AGENT_SERVE_H
#define VMLET_AGENT_SERVE_H

#include <asm/poll.h>
#include <linux/random.h>

#include "../power.h"
#include "command.h"
#include "files.h"
#include "guest.h"
#include "link.h"
#include "requests.h"
#include "spawn.h"
#include "stream.h"
#include "task.h"

#define SIGNALFD_BYTES 128
#define SIGNALS_READ 8
#define POLLS_A_STREAM 3
/* The rings are looked at without a wake-up, in case that somebody has taken it: ever less often while nothing comes. */
#define FIRST_LOOK_MS 1000
#define LAST_LOOK_MS 64000
/* Of descriptors, for as many commands as there may be. */
#define AGENT_FILES 4096

static struct poll_fd polls[4 + POLLS_A_STREAM * MAX_STREAMS];
static struct { unsigned short stream; unsigned char ready; } owners[4 + POLLS_A_STREAM * MAX_STREAMS];
static unsigned long look_ms = FIRST_LOOK_MS, next_try;

static void note_signals(void)
{
	static char signals[SIGNALS_READ * SIGNALFD_BYTES];
	long length = call3(read, child_signals, signals, sizeof(signals));

	for (long at = 0; at + SIGNALFD_BYTES <= length; at += SIGNALFD_BYTES) {
		unsigned number = *(unsigned *)(signals + at);

		if (number == SIGCHLD)
			child_changed = 1;
		else if (number == SIGTERM)
			asked_reboot = 1;
		else
			asked_off = 1;
	}
}

static struct stream *stream_of(long pid)
{
	for (unsigned i = 0; i < streams_end; i++)
		if (agent->streams[i].kind != STREAM_FREE && agent->streams[i].pid == pid)
			return &agent->streams[i];
	return 0;
}

/* A program that was to be held has been executed: the snapshot is taken, and whoever goes on from it begins it. */
static void begin_held(struct stream *stream)
{
	flush_link();
	hold_program(stream->pid, &timer->snapshot);
	stream->has_begun = 1;
	stream->ready |= READY_REPORT;
	begin_program(stream->pid);
}

/* Everything that has ended, orphans too. */
static void reap(void)
{
	int status;

	for (long pid; (pid = call4(wait4, -1, &status, WNOHANG, 0)) > 0;) {
		struct stream *stream = stream_of(pid);

		if (has_stopped(status)) {
			if (stream && (stream->flags & EXEC_HOLD) && !stream->has_begun)
				begin_held(stream);
			continue;
		}
		if (pid == spare.pid)
			drop_spare();
		if (!stream)
			continue;
		stream->pid = 0;
		stream->status = status;
		stream->has_process_ended = 1;
	}
}

/* One turn of one stream, which has room for it. */
static void serve_stream(struct stream *stream)
{
	switch (stream->kind) {
	case STREAM_COMMAND:
		serve_command(stream);
		break;
	case STREAM_DETACHED:
		serve_detached(stream);
		break;
	case STREAM_READ:
		serve_read(stream);
		break;
	case STREAM_LIST:
		serve_list(stream);
		break;
	case STREAM_WRITE:
		serve_write(stream);
		break;
	case STREAM_TASK:
		serve_task(stream);
		break;
	case STREAM_PORT:
		if (now_ms() >= stream->port.next)
			look_at_port(stream);
		break;
	}
	/* A file stays ready; what is the other end of a pipe is asked again. */
	stream->ready &= stream->kind == STREAM_READ ? READY_OUTPUT : 0;
}

static int serve_streams(void)
{
	int had_commands = 0;

	for (unsigned i = 0; i < streams_end; i++) {
		struct stream *stream = &agent->streams[i];

		if (stream->kind == STREAM_FREE)
			continue;
		if (ring_room(&link.output) < TURN_ROOM) {
			is_output_blocked = 1;
			break;
		}
		int was_command = stream->kind == STREAM_COMMAND;

		serve_stream(stream);
		had_commands |= was_command && stream->kind == STREAM_FREE;
	}
	return had_commands;
}

static unsigned add_poll(unsigned count, long fd, short events, unsigned stream, unsigned char ready)
{
	polls[count] = (struct poll_fd){ (int)fd, events, 0 };
	owners[count].stream = (unsigned short)stream;
	owners[count].ready = ready;
	return count + 1;
}

/* What a stream waits for. */
static unsigned add_stream_polls(unsigned count, unsigned i)
{
	struct stream *stream = &agent->streams[i];
	int has_room = ring_room(&link.output) > CONTROL_ROOM + FRAME_HEADER;

	if (stream->kind == STREAM_COMMAND) {
		if (stream->report >= 0)
			/* Nothing else happens before its exec has. */
			return stream->flags & EXEC_HOLD && !stream->has_begun ?
				       count :
				       add_poll(count, stream->report, POLLIN, i, READY_REPORT);
		if (stream->has_process_ended)
			return count;
		/* Without an event asked for, the end of the last reader is told all the same. */
		if (stream->input >= 0 && (stream->buffer || !(stream->flags & EXEC_TERMINAL)))
			count = add_poll(count, stream->input, stream->buffer ? POLLOUT : 0, i, READY_INPUT);
		if (stream->output >= 0 && stream->out_credit && has_room)
			count = add_poll(count, stream->output, POLLIN, i, READY_OUTPUT);
		if (stream->error >= 0 && stream->error_credit && has_room)
			count = add_poll(count, stream->error, POLLIN, i, READY_ERROR);
	} else if (stream->kind == STREAM_DETACHED) {
		if (stream->buffer)
			count = add_poll(count, stream->input, POLLOUT, i, READY_INPUT);
		if (stream->output >= 0)
			count = add_poll(count, stream->output, POLLIN, i, READY_OUTPUT);
		if (stream->error >= 0)
			count = add_poll(count, stream->error, POLLIN, i, READY_ERROR);
	} else if (stream->kind == STREAM_READ) {
		if (!stream->ready && stream->out_credit && has_room)
			count = add_poll(count, stream->output, POLLIN, i, READY_OUTPUT);
	} else if (stream->kind == STREAM_WRITE && stream->buffer) {
		count = add_poll(count, stream->input, POLLOUT, i, READY_INPUT);
	}
	return count;
}

/* When somebody must be served though nothing comes; 0: never. */
static unsigned long next_deadline(void)
{
	unsigned long next = link.state == LINK_DOWN ? next_try : 0;

	for (unsigned i = 0; i < streams_end; i++) {
		struct stream *stream = &agent->streams[i];

		if (stream->kind == STREAM_PORT && (!next || stream->port.next < next))
			next = stream->port.next;
	}
	return next;
}

/* True if the rings have changed since `input` and `output` were the counts of what is done. */
static int has_ring_changed(unsigned input, unsigned output)
{
	return *link.input.head != input || (is_output_blocked && *link.output.tail != output);
}

/* Sleeps until something comes: a frame, a descriptor, a signal, a deadline. */
static void wait_for_work(unsigned input, unsigned output)
{
	static char dropped[256];
	unsigned count = add_poll(0, child_signals, POLLIN, MAX_STREAMS, 0);
	unsigned long deadline = next_deadline(), now = deadline ? now_ms() : 0;
	struct timespec64 time = { 0, 0 };
	long ms = !deadline ? -1 : deadline > now ? (long)(deadline - now) : 0;
	int is_looking = 0;

	if (link.kind == LINK_CHANNEL) {
		count = add_poll(count, wake_up, POLLIN, MAX_STREAMS, 1);
		if (!is_busy) {
			/* Pairs with the monitor's: it changes a count, and then looks whether we wait. */
			channel->guest_waits = is_output_blocked ? CHANNEL_WAITS_FOR_ALL : CHANNEL_WAITS_FOR_INPUT;
			__sync_synchronize();
			is_busy = has_ring_changed(input, output);
			unsigned long look = wake_up >= 0 ? look_ms : LOOK_BLINDLY_MS;

			if (ms < 0 || look < (unsigned long)ms)
				ms = (long)look, is_looking = 1;
		}
	} else {
		int wants_input = link.state == LINK_UP && ring_room(&link.input) > 0;
		int wants_output = link.state == LINK_CONNECTING || ring_used(&link.output) > 0;

		count = add_poll(count, link.state == LINK_DOWN ? -1 : link.in, wants_input ? POLLIN : 0, MAX_STREAMS, 2);
		count = add_poll(count, wants_output && link.state != LINK_DOWN ? link.out : -1, POLLOUT, MAX_STREAMS, 3);
	}
	unsigned first = count;

	for (unsigned i = 0; i < streams_end; i++)
		count = add_stream_polls(count, i);
	if (is_busy)
		ms = 0;
	time = (struct timespec64){ ms / 1000, ms % 1000 * 1000000 };
	long ready = call5(ppoll, polls, count, ms < 0 ? 0 : &time, 0, 8);

	if (link.kind == LINK_CHANNEL)
		channel->guest_waits = 0;
	if (ready == 0 && is_looking && look_ms < LAST_LOOK_MS)
		look_ms *= 2;
	if (ready <= 0)
		return;
	look_ms = FIRST_LOOK_MS;
	if (polls[0].revents)
		note_signals();
	if (link.kind == LINK_CHANNEL) {
		if (polls[1].revents & POLLIN)
			call3(read, wake_up, dropped, sizeof(dropped));
		else if (polls[1].revents)
			wake_up = -1;
	} else {
		if (link.state == LINK_CONNECTING && polls[2].revents)
			finish_connecting();
		else if (polls[1].revents)
			fill_link();
	}
	for (unsigned i = first; i < count; i++) {
		struct stream *stream = &agent->streams[owners[i].stream];

		if (!polls[i].revents)
			continue;
		if (owners[i].ready == READY_INPUT && (polls[i].revents & (POLLERR | POLLNVAL)))
			stream->ready |= INPUT_GONE;
		if ((polls[i].revents & (POLLIN | POLLHUP)) == POLLHUP)
			stream->ready |= owners[i].ready == READY_OUTPUT ? OUTPUT_GONE : owners[i].ready == READY_ERROR ? ERROR_GONE : 0;
		stream->ready |= owners[i].ready;
	}
}

/* The host, or another one, has to say HELLO again. Commands end, and nothing of them is sent any more. */
static void restart_connection(int ends_link)
{
	for (unsigned i = 0; i < MAX_STREAMS; i++) {
		struct stream *stream = &agent->streams[i];

		if (stream->kind == STREAM_FREE || stream->kind == STREAM_DETACHED)
			continue;
		if (stream->kind == STREAM_COMMAND)
			kill_command(stream);
		else if (stream->kind == STREAM_TASK && stream->pid > 0)
			call2(kill, stream->pid, SIGKILL);
		drop_start(stream->start);
		stream->start = 0;
		close_stream(stream);
	}
	forget_host();
	if (!ends_link)
		say_hello();
}

/* A descriptor's other side comes and goes. False if there is no more to be served. */
static int mind_link(enum link_state before)
{
	if (link.state == LINK_DOWN) {
		if (before == LINK_UP)
			restart_connection(1);
		if (link.kind == LINK_PAIR)
			return 0;
		if (before != LINK_DOWN)
			next_try = now_ms() + RETRY_MS;
		if (now_ms() >= next_try) {
			connect_link();
			next_try = now_ms() + RETRY_MS;
		}
	}
	if (link.state == LINK_UP && before != LINK_UP)
		say_hello();
	return 1;
}

/* A guest that goes on from a snapshot has another host: what it has heard and said was somebody else's conversation. */
static void leave_host(void)
{
	for (unsigned i = 0; i < MAX_STREAMS; i++) {
		struct stream *stream = &agent->streams[i];

		if (stream->kind == STREAM_COMMAND)
			detach_command(stream);
		else if (stream->kind != STREAM_FREE && stream->kind != STREAM_DETACHED)
			close_stream(stream);
	}
	forget_host();
	say_hello();
}

static void become_another_if_told(void)
{
	struct restore_block *notice = link.kind == LINK_CHANNEL ? has_notice() : 0;

	if (!notice)
		return;
	become_another(notice);
	leave_host();
}

/* Signals come by a descriptor alone, and a pipe without a reader by its error. */
static void prepare_signals(void)
{
	unsigned long mask = 1UL << (SIGCHLD - 1);

	if (is_init)
		mask |= 1UL << (SIGUSR1 - 1) | 1UL << (SIGUSR2 - 1) | 1UL << (SIGTERM - 1);
	child_signals = call4(signalfd4, -1, &mask, sizeof(mask), O_NONBLOCK | O_CLOEXEC);
	mask |= 1UL << (SIGPIPE - 1) | 1UL << (SIGTTOU - 1);
	call4(rt_sigprocmask, SIG_BLOCK, &mask, 0, 8);
}

/* Before anything is sent. False without memory. */
static int prepare_agent(void)
{
	struct { unsigned long soft, hard; } files;
	long fd;

	/* No pipe of ours takes the place of a standard descriptor. */
	do
		fd = call3(open, "/dev/null", O_RDWR, 0);
	while (fd >= 0 && fd <= 2);
	if (fd > 2)
		call1(close, fd);
	agent = new_memory(sizeof(*agent));
	if (!agent)
		return 0;
	call4(prlimit64, 0, RLIMIT_NOFILE, 0, &file_limit);
	files.hard = file_limit.hard;
	files.soft = file_limit.hard < AGENT_FILES ? file_limit.hard : AGENT_FILES;
	call4(prlimit64, 0, RLIMIT_NOFILE, &files, 0);
	call1(umask, 0);
	prepare_signals();
	return 1;
}

/* Until the host ends it, or the guest is asked to. The exit status. */
static int serve_agent(void)
{
	enum link_state before = LINK_DOWN;
	int wants_spare = !spare.pid;

	next_try = 0;
	for (;;) {
		unsigned input, output;

		become_another_if_told();
		if (!mind_link(before)) {
			kill_sessions();
			return 0;
		}
		before = link.state;
		is_busy = is_output_blocked = 0;
		/* In this order: what comes after the look is seen by the next one. */
		input = *link.input.head;
		output = *link.output.tail;
		if (link.state == LINK_UP && !take_frames())
			restart_connection(0);
		if (child_changed) {
			child_changed = 0;
			reap();
		}
		wants_spare |= serve_streams();
		kill_sessions();
		flush_link();
		if (asked_off || asked_reboot || is_leaving)
			return leaving_status;
		if (link.state != before)
			continue;
		if (wants_spare && !is_busy) {
			make_spare();
			wants_spare = 0;
		}
		wait_for_work(input, output);
	}
}

#endif
