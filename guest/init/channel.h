/* The command's standard input and output where the host has no terminal: pipes, as in a container, whose bytes
 * move between here and the monitor's memory (devices/pseudo/command-channel.ts, mapped from /dev/mem). Every
 * byte is as it is, an end is an end, and the command's own end waits for neither side's rest of input. */
#ifndef VMLET_CHANNEL_H
#define VMLET_CHANNEL_H

#include <asm/errno.h>
#include <asm/fcntl.h>
#include <asm/ioctls.h>
#include <asm/poll.h>
#include <asm/signal.h>
#include <linux/mman.h>
#include <linux/sched.h>

#include "syscall.h"

#define CHANNEL_LAYOUT 1
#define CHANNEL_CONTROL_BYTES 0x1000
#define CHANNEL_RING_BYTES 0x20000
#define CHANNEL_BYTES (CHANNEL_CONTROL_BYTES + 2 * CHANNEL_RING_BYTES)
#define CHANNEL_OPEN 1
#define CHANNEL_INPUT_CLOSED 2

/* A look at the rings without being woken: nobody else shall read the terminal, but somebody may, ms. */
#define LOOK_MS 1000
/* Without a terminal nothing wakes us. */
#define LOOK_BLINDLY_MS 20

struct channel {
	/* Counts of bytes since the start. */
	volatile unsigned output_head, output_tail, input_head, input_tail;
	volatile unsigned input_end, state, guest_waits, version;
	/* The monitor has more input than there was room for. */
	volatile unsigned monitor_waits;
	/* Init is about to look for a notice: nobody need wake it. */
	volatile unsigned looks;
};

/* In the control page: what a guest that goes on from a snapshot is told, whatever it was doing (template.h). */
#define CHANNEL_NOTICE 0x100

struct poll_fd {
	int fd;
	short events, revents;
};

struct timespec64 {
	long seconds, nanoseconds;
};

static struct channel *channel;
static char *output_ring, *input_ring;
/* Our ends of the pipes, -1 once they are closed; and the terminal, which is only there to wake us. */
static long pipe_output = -1, pipe_input = -1, wake_up = -1;
/* Set when a child has ended or stopped: by SIGCHLD, or by what a descriptor tells of that signal, which is cheaper. */
static volatile int child_changed;
static long child_signals = -1;
static unsigned long sleeping_mask;
/* The monitor's register. */
static volatile unsigned *doorbell;

/* Maps the channel at `gpa`, which the monitor has named; false if there is none that we know. */
static int open_channel(unsigned gpa, volatile unsigned *bell)
{
	if (!gpa)
		return 0;
	/* Without O_SYNC: this is memory, to be cached. */
	long fd = call3(open, "/dev/mem", O_RDWR | O_CLOEXEC, 0);

	if (fd < 0)
		return 0;
	long at = call6(mmap, 0, CHANNEL_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, gpa);

	call1(close, fd);
	if ((unsigned long)at > -4096UL)
		return 0;
	channel = (struct channel *)at;
	if (channel->version != CHANNEL_LAYOUT) {
		channel = 0;
		return 0;
	}
	output_ring = (char *)at + CHANNEL_CONTROL_BYTES;
	input_ring = output_ring + CHANNEL_RING_BYTES;
	doorbell = bell;
	return 1;
}

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

static unsigned output_room(void)
{
	return CHANNEL_RING_BYTES - (channel->output_head - channel->output_tail);
}

static unsigned input_waiting(void)
{
	return channel->input_head - channel->input_tail;
}

/* One read of what the command has written, at most `limit` bytes; the count, 0 if there is nothing now. */
static unsigned move_output(unsigned limit)
{
	unsigned at = channel->output_head % CHANNEL_RING_BYTES, room = output_room();

	if (room > CHANNEL_RING_BYTES - at)
		room = CHANNEL_RING_BYTES - at;
	if (room > limit)
		room = limit;
	if (pipe_output < 0 || !room)
		return 0;
	long count = call3(read, pipe_output, output_ring + at, room);

	if (count == 0)
		/* The last writer has gone, and a pipe without one is always ready. */
		close_pipe(&pipe_output);
	if (count <= 0)
		return 0;
	channel->output_head += (unsigned)count;
	*doorbell = 1;
	return (unsigned)count;
}

/* One write of what has come for the command. */
static unsigned move_input(void)
{
	unsigned end, waiting, at = channel->input_tail % CHANNEL_RING_BYTES;

	if (pipe_input < 0)
		return 0;
	/* In this order: the monitor writes the last count before the end. */
	end = channel->input_end;
	waiting = input_waiting();
	if (!waiting) {
		if (end)
			close_pipe(&pipe_input);
		return 0;
	}
	if (waiting > CHANNEL_RING_BYTES - at)
		waiting = CHANNEL_RING_BYTES - at;
	long count = call3(write, pipe_input, input_ring + at, waiting);

	if (count == -EPIPE)
		close_input();
	if (count <= 0)
		return 0;
	channel->input_tail += (unsigned)count;
	/* Pairs with the monitor's: it says that it waits, and then looks once more for room. */
	__sync_synchronize();
	if (channel->monitor_waits)
		*doorbell = 1;
	return (unsigned)count;
}

static int must_be_woken(void)
{
	if (pipe_output >= 0 && !output_room())
		return 1;
	return pipe_input >= 0 && !channel->input_end && !input_waiting();
}

/* The terminal has become the command's (template.h): its bytes are no wake-ups. */
static int terminal_is_taken(void);

/* SIGCHLD, which is blocked, wakes init through a descriptor: no handler, and no way back from one. */
static void open_child_signals(void)
{
	static const unsigned long mask = 1UL << (SIGCHLD - 1);

	child_signals = call4(signalfd4, -1, &mask, sizeof(mask), O_NONBLOCK | O_CLOEXEC);
	if (child_signals >= 0)
		sleeping_mask = mask;
}

/* What has come until now has been looked at. */
static void forget_child_signals(void)
{
	static char dropped[128];

	if (child_signals >= 0)
		call3(read, child_signals, dropped, sizeof(dropped));
}

/* Sleeps until a pipe is ready, the monitor wakes us or a signal comes, which is taken in here and nowhere else. */
static void wait_for_bytes(int is_busy)
{
	static char dropped[256];
	struct poll_fd fds[4];
	struct timespec64 time = { 0, 0 };
	int waits = 0;

	if (!is_busy && must_be_woken()) {
		channel->guest_waits = 1;
		/* Pairs with the monitor's: it changes a count, and then looks whether we wait. */
		__sync_synchronize();
		waits = must_be_woken();
	}
	fds[0] = (struct poll_fd){ output_room() ? (int)pipe_output : -1, POLLIN, 0 };
	/* Without an event asked for, the end of the last reader is told all the same. */
	fds[1] = (struct poll_fd){ (int)pipe_input, pipe_input >= 0 && input_waiting() ? POLLOUT : 0, 0 };
	fds[2] = (struct poll_fd){ (int)wake_up, POLLIN, 0 };
	fds[3] = (struct poll_fd){ (int)child_signals, POLLIN, 0 };
	if (waits) {
		long ms = wake_up >= 0 ? LOOK_MS : LOOK_BLINDLY_MS;

		time = (struct timespec64){ ms / 1000, ms % 1000 * 1000000 };
	}
	int is_done = is_busy || (!waits && must_be_woken());

	call5(ppoll, fds, 4, is_done || waits ? &time : 0, &sleeping_mask, 8);
	channel->guest_waits = 0;
	if (fds[3].revents)
		child_changed = 1;
	/* The last writer has gone, and nothing is left: only forgotten, since closing it is work for nothing. */
	if ((fds[0].revents & (POLLIN | POLLHUP)) == POLLHUP)
		pipe_output = -1;
	if (fds[1].revents & POLLERR)
		close_input();
	if (!fds[2].revents)
		return;
	if ((fds[2].revents & POLLIN) && !terminal_is_taken())
		call3(read, wake_up, dropped, sizeof(dropped));
	else
		wake_up = -1;
}

/* What the command has written before its end, and no more: a child of its may write for ever. */
static void drain_output(void)
{
	int left = 0;

	if (pipe_output >= 0)
		call3(ioctl, pipe_output, FIONREAD, &left);
	while (left > 0 && pipe_output >= 0) {
		unsigned moved = move_output((unsigned)left);

		left -= (int)moved;
		if (!moved) {
			/* Only a full ring stops us. */
			close_pipe(&pipe_input);
			wait_for_bytes(0);
		}
	}
}

#endif
