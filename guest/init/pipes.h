/* The command between pipes, whose bytes go through the channel's rings (channel.h). */
#ifndef VMLET_PIPES_H
#define VMLET_PIPES_H

#include <asm/errno.h>
#include <asm/ioctls.h>
#include <asm/poll.h>
#include <linux/sched.h>

#include "agent/ring.h"
#include "channel.h"
#include "cmdline.h"
#include "power.h"
#include "signals.h"
#include "template.h"
#include "terminal.h"
#include "watch.h"

#define PRIO_PROCESS 0
/* Of init while it moves bytes: a tenth of a processor, if programs want all of it. */
#define NICE 10

#define OUTPUTS 2

/* Standard output and standard error: our end of the pipe, -1 once it is closed, and where its bytes go. */
static struct outlet {
	long pipe;
	int is_ready, is_large;
	struct ring ring;
} outlets[OUTPUTS];
static long pipe_input = -1;
static struct ring input;

static void close_pipe(long *fd)
{
	if (*fd >= 0)
		call1(close, *fd);
	*fd = -1;
}

/* Nobody reads the command's input any more. */
static void close_input(void)
{
	close_pipe(&pipe_input);
	channel->state = CHANNEL_INPUT_CLOSED;
	*doorbell = 1;
}

/* One read of what the command has written, at most `limit` bytes; the count, 0 if there is nothing now. */
static unsigned move_output(struct outlet *outlet, unsigned limit)
{
	struct part parts[2];
	unsigned room = ring_room(&outlet->ring), head = *outlet->ring.head;

	outlet->is_ready = 0;
	if (room > limit)
		room = limit;
	if (outlet->pipe < 0 || !room)
		return 0;
	long count = call3(readv, outlet->pipe, parts, ring_parts(&outlet->ring, head, room, parts));

	if (count == 0)
		/* The last writer has gone, and a pipe without one is always ready. */
		close_pipe(&outlet->pipe);
	if (count <= 0)
		return 0;
	*outlet->ring.head = head + (unsigned)count;
	tell_of_output(&outlet->ring);
	if (count >= PIPE_BYTES)
		enlarge_pipe(outlet->pipe, &outlet->is_large);
	return (unsigned)count;
}

static unsigned move_outputs(void)
{
	unsigned moved = 0;

	for (int i = 0; i < OUTPUTS; i++)
		if (outlets[i].is_ready)
			moved += move_output(&outlets[i], RING_BYTES);
	return moved;
}

/* One write of what has come for the command. */
static unsigned move_input(void)
{
	static int is_large;
	struct part parts[2];
	unsigned end, waiting;

	if (pipe_input < 0)
		return 0;
	/* In this order: the monitor writes the last count before the end. */
	end = channel->input_end;
	waiting = ring_used(&input);
	if (!waiting) {
		if (end)
			close_pipe(&pipe_input);
		return 0;
	}
	long count = call3(writev, pipe_input, parts, ring_parts(&input, *input.tail, waiting, parts));

	if (count == -EPIPE)
		close_input();
	if (count <= 0)
		return 0;
	*input.tail += (unsigned)count;
	tell_of_room(&input);
	if ((unsigned)count < waiting)
		enlarge_pipe(pipe_input, &is_large);
	return (unsigned)count;
}

static int must_be_woken(void)
{
	for (int i = 0; i < OUTPUTS; i++)
		if (outlets[i].pipe >= 0 && !ring_room(&outlets[i].ring))
			return 1;
	return pipe_input >= 0 && !channel->input_end && !ring_used(&input);
}

/* Sleeps until a pipe is ready, the monitor wakes us or a signal comes, which is taken in here and nowhere else. */
static void wait_for_bytes(int is_busy)
{
	static char dropped[256];
	struct poll_fd fds[OUTPUTS + 3], *reader = fds + OUTPUTS, *woken = reader + 1, *children = woken + 1;
	struct timespec64 time = { 0, 0 };
	int waits = 0;

	if (!is_busy && must_be_woken()) {
		channel->guest_waits = CHANNEL_WAITS_FOR_ALL;
		/* Pairs with the monitor's: it changes a count, and then looks whether we wait. */
		__sync_synchronize();
		waits = must_be_woken();
	}
	for (int i = 0; i < OUTPUTS; i++)
		fds[i] = (struct poll_fd){ ring_room(&outlets[i].ring) ? (int)outlets[i].pipe : -1, POLLIN, 0 };
	/* Without an event asked for, the end of the last reader is told all the same. */
	*reader = (struct poll_fd){ (int)pipe_input, pipe_input >= 0 && ring_used(&input) ? POLLOUT : 0, 0 };
	*woken = (struct poll_fd){ (int)wake_up, POLLIN, 0 };
	*children = (struct poll_fd){ (int)child_signals, POLLIN, 0 };
	if (waits) {
		long ms = wake_up >= 0 ? LOOK_MS : LOOK_BLINDLY_MS;

		time = (struct timespec64){ ms / 1000, ms % 1000 * 1000000 };
	}
	int is_done = is_busy || (!waits && must_be_woken());

	call5(ppoll, fds, OUTPUTS + 3, is_done || waits ? &time : 0, &sleeping_mask, 8);
	channel->guest_waits = 0;
	if (children->revents)
		child_changed = 1;
	for (int i = 0; i < OUTPUTS; i++) {
		outlets[i].is_ready = fds[i].revents != 0;
		/* The last writer has gone, and nothing is left: only forgotten, since closing it is work for nothing. */
		if ((fds[i].revents & (POLLIN | POLLHUP)) == POLLHUP)
			outlets[i].pipe = -1;
	}
	if (reader->revents & POLLERR)
		close_input();
	if (!woken->revents)
		return;
	if ((woken->revents & POLLIN) && !terminal_is_taken())
		call3(read, wake_up, dropped, sizeof(dropped));
	else
		wake_up = -1;
}

/* What the command has written before its end, and no more: a child of its may write for ever. */
static void drain_outputs(void)
{
	int left[OUTPUTS] = { 0, 0 };

	for (int i = 0; i < OUTPUTS; i++)
		if (outlets[i].pipe >= 0)
			call3(ioctl, outlets[i].pipe, FIONREAD, &left[i]);
	for (;;) {
		unsigned moved = 0;
		int is_left = 0;

		for (int i = 0; i < OUTPUTS; i++) {
			unsigned count = left[i] > 0 ? move_output(&outlets[i], (unsigned)left[i]) : 0;

			left[i] -= (int)count;
			moved += count;
			if (left[i] <= 0)
				outlets[i].pipe = -1;
			is_left |= outlets[i].pipe >= 0;
		}
		if (!is_left)
			return;
		if (!moved) {
			/* Only a full ring stops us. */
			close_pipe(&pipe_input);
			wait_for_bytes(0);
		}
	}
}

/* Whoever writes goes on until the pipe is full, instead of giving way to init for every piece. */
static void give_way(void)
{
	static const int priority = 0;

	call3(sched_setscheduler, 0, SCHED_BATCH, &priority);
	call3(setpriority, PRIO_PROCESS, 0, NICE);
}

struct command_state {
	int status, has_ended;
	/* It was held at its start, and has been let go. */
	int was_held;
	/* Since the last look at what it has written. */
	int has_begun;
	/* The signals that it may still have (watch.h). */
	unsigned char watched;
};

/* Reaps what has ended, but nothing behind the command. One that is held begins: it is the only child then; and it is heard of
 * once it is about to end, when all that it has to say is in its pipes. */
static void look_at_children(long command, struct command_state *state)
{
	int status;

	for (long pid; (pid = call4(wait4, -1, &status, WNOHANG, 0)) > 0;) {
		if (has_stopped(status) && !state->was_held) {
			forget_child_signals();
			hold_program(pid, &timer->snapshot, 0);
			milestone(MILESTONE_COMMAND_START);
			state->watched = begin_watched(pid);
			state->was_held = state->has_begun = 1;
			return;
		}
		if (has_stopped(status) && !is_ending(pid, &status, &state->watched))
			continue;
		if (pid == command) {
			state->status = exit_status(status);
			state->has_ended = 1;
			return;
		}
	}
}

static struct outlet new_outlet(long pipe, struct ring ring)
{
	call3(fcntl, pipe, F_SETFL, O_NONBLOCK);
	return (struct outlet){ pipe, 0, 0, ring };
}

/* Runs the command between pipes, and moves what goes through them, until it has ended. Its exit status. */
static int run_with_pipes(void)
{
	static const unsigned long signals = 1UL << (SIGCHLD - 1) | 1UL << (SIGUSR1 - 1) | 1UL << (SIGUSR2 - 1) |
					     1UL << (SIGTERM - 1);
	static const unsigned long none = 0;
	struct command_state state = { STATUS_CANNOT_RUN, 0, 0, 0, 0 };
	int in[2], out[2], error[2];

	if (is_template)
		warm_up();
	if (call2(pipe2, in, O_CLOEXEC) != 0 || call2(pipe2, out, O_CLOEXEC) != 0 || call2(pipe2, error, O_CLOEXEC) != 0)
		return state.status;
	handle(SIGCHLD, on_signal);
	/* Taken in while init sleeps, and not between its look and its sleep. */
	call4(rt_sigprocmask, SIG_BLOCK, &signals, 0, 8);
	open_child_signals();
	open_urandom();
	channel->state = CHANNEL_OPEN;
	/* Its pages would be copied to the command, which needs no more than what a template's guest is told. */
	call3(madvise, output_ring + CHANNEL_BLOCK_BYTES, 3 * CHANNEL_RING_BYTES - CHANNEL_BLOCK_BYTES, MADV_DONTFORK);
	long command = call0(fork);

	if (command == 0) {
		call4(rt_sigprocmask, SIG_SETMASK, &none, 0, 8);
		/* Without a terminal, as in a container that was given none. */
		call0(setsid);
		call2(dup2, in[0], 0);
		call2(dup2, out[1], 1);
		call2(dup2, error[1], 2);
		call1(chdir, "/root");
		run_command(is_template ? wait_in_template(&timer->snapshot, terminal_device) : argv);
	}
	/* Not before the fork: the command would inherit it. */
	give_way();
	call1(close, in[0]);
	call1(close, out[1]);
	call1(close, error[1]);
	pipe_input = in[1];
	call3(fcntl, pipe_input, F_SETFL, O_NONBLOCK);
	outlets[0] = new_outlet(out[0], ring_of_output());
	outlets[1] = new_outlet(error[0], ring_of_error());
	input = ring_of_input();
	while (command > 0) {
		/* Before the command gets what was sent to this guest, and not to the one that was saved. */
		struct restore_block *notice = has_notice();

		if (notice)
			become_another(notice);
		/* Of a program that has just begun there is none. */
		unsigned moved = move_outputs() + move_input();

		state.has_begun = 0;
		wait_for_bytes(moved > 0);
		if (asked_off) {
			state.status = 0;
			break;
		}
		if (asked_reboot)
			break;
		if (!child_changed)
			continue;
		child_changed = 0;
		look_at_children(command, &state);
		if (state.has_ended)
			break;
		if (!state.has_begun) {
			/* In this order: what comes between the two is seen by the second. */
			forget_child_signals();
			look_at_children(command, &state);
			if (state.has_ended)
				break;
		}
	}
	drain_outputs();
	reboot_if_asked();
	return state.status;
}

#endif
