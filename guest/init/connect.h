/* `init connect PORT`: a connection to a TCP port of the guest's own loopback, whose other end are this program's standard input and
 * output: by it a host hands on what came for a port of a pod's (vmm/oci/network/loopback.ts). The end of the input closes that
 * half of the connection; the program ends with the other half. */
#ifndef VMLET_CONNECT_H
#define VMLET_CONNECT_H

#include <asm/signal.h>

#include "network.h"
#include "syscall.h"
#include "text.h"

#define AF_INET6 10
#define SOCK_STREAM 1
#define SHUT_WR 1
#define NOBODY_STATUS 1

struct internet6_address {
	unsigned short family, port;
	unsigned flow;
	unsigned char bytes[16];
	unsigned scope;
};

static long open_connection(unsigned port)
{
	unsigned short swapped = (unsigned short)(port << 8 | port >> 8);
	struct internet_address four = { AF_INET, swapped, { 127, 0, 0, 1 }, { 0 } };
	struct internet6_address six = { AF_INET6, swapped, 0, { [15] = 1 }, 0 };
	long fd = call3(socket, AF_INET, SOCK_STREAM, 0);

	if (fd >= 0 && call3(connect, fd, &four, sizeof(four)) == 0)
		return fd;
	call1(close, fd);
	fd = call3(socket, AF_INET6, SOCK_STREAM, 0);
	return fd >= 0 && call3(connect, fd, &six, sizeof(six)) == 0 ? fd : -1;
}

/* Until the end of what comes, or until nobody takes it. */
static void hand_on(long from, long to)
{
	static char bytes[65536];
	long count;

	while ((count = call3(read, from, bytes, sizeof(bytes))) > 0) {
		for (long done = 0, sent; done < count; done += sent)
			if ((sent = call3(write, to, bytes + done, count - done)) <= 0)
				return;
	}
}

static int run_connection(unsigned port)
{
	long fd = open_connection(port);

	if (fd < 0) {
		say("init: connect: nobody listens at the port\n");
		return NOBODY_STATUS;
	}
	/* A process each way: neither waits for the other. */
	long child = call0(fork);

	if (child == 0) {
		hand_on(0, fd);
		call2(shutdown, fd, SHUT_WR);
		return 0;
	}
	hand_on(fd, 1);
	if (child > 0)
		call2(kill, child, SIGKILL);
	return 0;
}

#endif
