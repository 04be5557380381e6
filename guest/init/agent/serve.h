/* The agent: one loop, in which nothing waits but the loop itself, for whatever comes first. docs/agent-protocol.md. */
#ifndef VMLET_AGENT_SERVE_H
#define VMLET_AGENT_SERVE_H

#include "../power.h"
#include "command.h"
#include "files.h"
#include "guest.h"
#include "link.h"
#include "requests.h"
#include "spawn.h"
#include "stream.h"
#include "task.h"
#include "wait.h"

/* Of descriptors, for as many commands as there may be. */
#define AGENT_FILES 4096

static struct stream *stream_of(long pid)
{
	for (unsigned i = 0; i < streams_end; i++) {
		if (agent->streams[i].kind == STREAM_FREE)
			continue;
		follow_successor(&agent->streams[i]);
		if (agent->streams[i].pid == pid)
			return &agent->streams[i];
	}
	return 0;
}

/* A program that was to be held has been executed: the snapshot is taken, and whoever goes on from it begins it. */
static void begin_held(struct stream *stream)
{
	/* Its end is not paid for by each guest that goes on from here. */
	if (stream->predecessor)
		call4(wait4, stream->predecessor, 0, 0, 0);
	flush_link();
	hold_program(stream->pid, &timer->snapshot, stream->flags & EXEC_CONTAINER);
	if (stream->flags & EXEC_WAIT)
		stream->waits_for_word = 1;
	else
		let_begin(stream);
}

/* A program whose end is known and told, and that has not been let go to it. */
static long ending;

static void let_end(void)
{
	if (ending)
		begin_program(ending);
	ending = 0;
}

/* Everything that has ended, orphans too. */
static void reap(void)
{
	unsigned char unknown = 0;
	int status;

	for (long pid; (pid = call4(wait4, -1, &status, WNOHANG, 0)) > 0;) {
		struct stream *stream = stream_of(pid);

		if (has_stopped(status)) {
			if (stream && (stream->flags & EXEC_HOLD) && !stream->has_begun) {
				int signal = (status >> 8) & 0xff;

				/* A signal that came before its exec is its own; the exec is told of by SIGTRAP. */
				if (signal == SIGTRAP)
					begin_held(stream);
				else
					call4(ptrace, PTRACE_CONT, pid, 0, signal);
				continue;
			}
			if (!is_ending(pid, &status, stream ? &stream->watched : &unknown))
				continue;
			let_end();
			ending = pid;
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

	if (notice)
		become_another(notice);
	/* Where it was told before it served anybody, that host may have spoken. */
	else if (!has_other_host)
		return;
	has_other_host = 0;
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
		close_leavings();
		if (asked_off || asked_reboot || is_leaving)
			return leaving_status;
		if (link.state != before)
			continue;
		if (wants_spare && !is_busy) {
			let_end();
			make_spare();
			wants_spare = 0;
		}
		wait_for_work(input, output);
	}
}

#endif
