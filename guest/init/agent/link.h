/* What the conversation goes over: the rings of the command channel, which the monitor reads and writes itself, or two
 * descriptors with a ring before each of them: a pair of pipes, a console port, a serial line, or vsock. */
#ifndef VMLET_AGENT_LINK_H
#define VMLET_AGENT_LINK_H

#include <asm/errno.h>
#include <asm/fcntl.h>
#include <asm/ioctls.h>
#include <asm/poll.h>
#include <asm/termbits.h>
#include <linux/mman.h>

#include "../channel.h"
#include "../syscall.h"
#include "ring.h"

#define AF_VSOCK 40
#define SOCK_STREAM 1
#define SOL_SOCKET 1
#define SO_ERROR 4
#define HOST_CID 2
/* syslog(2): from here on the kernel's console has only its last words. */
#define SYSLOG_CONSOLE_OFF 6
/* Between two tries to reach the host. */
#define RETRY_MS 200

struct vsock_address {
	unsigned short family, zero;
	unsigned port, cid;
	char more[4];
};

enum link_kind { LINK_CHANNEL, LINK_PAIR, LINK_DEVICE, LINK_VSOCK };
enum link_state { LINK_DOWN, LINK_CONNECTING, LINK_UP };

static struct {
	enum link_kind kind;
	enum link_state state;
	long in, out;
	unsigned port;
	struct ring input, output;
	/* The counts of rings that are the agent's own. */
	volatile unsigned counts[4];
	/* Something has been put, or taken, that the other side has not been told of. */
	int has_put, has_taken;
} link = { .in = -1, .out = -1 };

/* Private memory that children do not get: to fork it costs time, and so does the first write to it afterwards. */
static void *new_memory(size_t length)
{
	long at = call6(mmap, 0, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if ((unsigned long)at > -4096UL)
		return 0;
	call3(madvise, at, length, MADV_DONTFORK);
	return (void *)at;
}

static void link_over_channel(void)
{
	link.kind = LINK_CHANNEL;
	link.state = LINK_UP;
	link.output = ring_of_output();
	link.input = ring_of_input();
	call3(madvise, channel, CHANNEL_BYTES, MADV_DONTFORK);
}

/* False without memory. */
static int make_own_rings(void)
{
	char *memory = new_memory(2 * RING_BYTES);

	link.output = (struct ring){ memory, &link.counts[0], &link.counts[1], 0 };
	link.input = (struct ring){ memory + RING_BYTES, &link.counts[2], &link.counts[3], 0 };
	return memory != 0;
}

static int link_over_pair(long in, long out)
{
	link.kind = LINK_PAIR;
	link.state = LINK_UP;
	link.in = in;
	link.out = out;
	for (int i = 0; i < 2; i++) {
		long fd = i ? out : in, flags = call3(fcntl, fd, F_GETFL, 0);

		if (flags < 0)
			return 0;
		call3(fcntl, fd, F_SETFL, flags | O_NONBLOCK);
		call3(fcntl, fd, F_SETFD, FD_CLOEXEC);
	}
	return make_own_rings();
}

/* A console port or a serial line: every byte as it is, and none of the kernel's between them. */
static int link_over_device(const char *path)
{
	struct termios modes;
	long fd = call3(open, path, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC, 0);

	if (fd < 0)
		return 0;
	link.kind = LINK_DEVICE;
	link.state = LINK_UP;
	link.in = link.out = fd;
	call3(syslog, SYSLOG_CONSOLE_OFF, 0, 0);
	if (call3(ioctl, fd, TCGETS, &modes) == 0) {
		modes.c_iflag = 0;
		modes.c_lflag = 0;
		modes.c_oflag = 0;
		modes.c_cflag = (modes.c_cflag & ~(unsigned)(CBAUD | CSIZE | PARENB | CRTSCTS)) | B115200 | CS8 | CREAD | CLOCAL;
		modes.c_cc[VMIN] = 1;
		modes.c_cc[VTIME] = 0;
		call3(ioctl, fd, TCSETS, &modes);
		call3(ioctl, fd, TCFLSH, 0);
	}
	return make_own_rings();
}

static int link_over_vsock(unsigned port)
{
	link.kind = LINK_VSOCK;
	link.port = port;
	return make_own_rings();
}

static void drop_rings(void)
{
	*link.output.tail = *link.output.head;
	*link.input.tail = *link.input.head;
}

/* The other side has gone. */
static void lose_link(void)
{
	link.state = LINK_DOWN;
	if (link.kind == LINK_VSOCK) {
		call1(close, link.in);
		link.in = link.out = -1;
	}
	drop_rings();
}

static void connect_link(void)
{
	struct vsock_address host = { .family = AF_VSOCK, .port = link.port, .cid = HOST_CID };
	struct poll_fd poll = { (int)link.in, POLLIN, 0 };
	struct timespec64 none = { 0, 0 };

	if (link.kind == LINK_DEVICE) {
		/* The host has its end open again. */
		if (call5(ppoll, &poll, 1, &none, 0, 8) >= 0 && !(poll.revents & (POLLHUP | POLLERR)))
			link.state = LINK_UP;
		return;
	}
	long fd = call3(socket, AF_VSOCK, SOCK_STREAM | O_NONBLOCK | O_CLOEXEC, 0);

	if (fd < 0)
		return;
	long result = call3(connect, fd, &host, sizeof(host));

	if (result != 0 && result != -EINPROGRESS) {
		call1(close, fd);
		return;
	}
	link.in = link.out = fd;
	link.state = result == 0 ? LINK_UP : LINK_CONNECTING;
}

/* The connection is there, or has failed. */
static void finish_connecting(void)
{
	int error = 0, length = sizeof(error);

	if (call5(getsockopt, link.in, SOL_SOCKET, SO_ERROR, &error, &length) != 0 || error)
		lose_link();
	else
		link.state = LINK_UP;
}

/* Takes in what has come by a descriptor. */
static void fill_link(void)
{
	struct part parts[2];
	unsigned room = ring_room(&link.input);

	if (link.kind == LINK_CHANNEL || link.state != LINK_UP || !room)
		return;
	long count = call3(readv, link.in, parts, ring_parts(&link.input, *link.input.head, room, parts));

	if (count > 0)
		*link.input.head += (unsigned)count;
	else if (count != -EAGAIN && count != -EINTR)
		lose_link();
}

/* Sends what has been put, or tells the monitor that it is there. */
static void flush_link(void)
{
	struct part parts[2];

	if (link.kind == LINK_CHANNEL) {
		if (link.has_taken)
			tell_of_room(&link.input);
		if (link.has_put)
			tell_of_output(&link.output);
		link.has_put = link.has_taken = 0;
		return;
	}
	while (link.state == LINK_UP) {
		unsigned used = ring_used(&link.output);

		if (!used)
			return;
		long count = call3(writev, link.out, parts, ring_parts(&link.output, *link.output.tail, used, parts));

		if (count > 0)
			*link.output.tail += (unsigned)count;
		else if (count == -EAGAIN || count == 0)
			return;
		else if (count != -EINTR)
			lose_link();
	}
}

#endif
