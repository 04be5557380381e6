/* The command's standard input, output and error where the host has no terminal: pipes, as in a container, whose bytes
 * move between here and the monitor's memory (devices/pseudo/command-channel.ts, mapped from /dev/mem). Every
 * byte is as it is, an end is an end, and the command's own end waits for neither side's rest of input. */
#ifndef VMLET_CHANNEL_H
#define VMLET_CHANNEL_H

#include <asm/errno.h>
#include <asm/fcntl.h>
#include <asm/ioctls.h>
#include <asm/poll.h>
#include <asm/signal.h>
#include <linux/fcntl.h>
#include <linux/mman.h>
#include <linux/sched.h>

#include "syscall.h"

#define CHANNEL_LAYOUT 3
#define CHANNEL_CONTROL_BYTES 0x1000
#define CHANNEL_RING_BYTES 0x100000
#define CHANNEL_BYTES (CHANNEL_CONTROL_BYTES + 3 * CHANNEL_RING_BYTES)
/* What a guest of a template is told, and what a short command needs of a ring: its pages are there before. */
#define CHANNEL_BLOCK_BYTES 0x20000
#define CHANNEL_OPEN 1
#define CHANNEL_INPUT_CLOSED 2
/* Values of `guest_waits`. */
#define CHANNEL_WAITS_FOR_ALL 1
#define CHANNEL_WAITS_FOR_INPUT 2
/* What only says that more may be sent can wait, too. */
#define CHANNEL_WAITS_FOR_REQUESTS 3

/* Of a pipe, unless somebody asks for more; and what is asked for once that much has waited in one. */
#define PIPE_BYTES 65536
#define LARGE_PIPE_BYTES (1 << 20)

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
	/* Of standard error. */
	volatile unsigned error_head, error_tail;
	/* The monitor has taken all of an output, and sleeps until the bell. */
	volatile unsigned output_asked, error_asked;
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
static char *output_ring, *input_ring, *error_ring;
/* The terminal, which is only there to wake us. */
static long wake_up = -1;
/* The monitor's register. */
static volatile unsigned *doorbell;

/* A program that writes or reads much need not give way for every piece. */
static void enlarge_pipe(long fd, int *is_large)
{
	if (!*is_large)
		call3(fcntl, fd, F_SETPIPE_SZ, LARGE_PIPE_BYTES);
	*is_large = 1;
}

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
	error_ring = input_ring + CHANNEL_RING_BYTES;
	doorbell = bell;
	return 1;
}

#endif
