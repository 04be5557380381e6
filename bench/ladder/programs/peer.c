/* The host's end of the network measurements: answers on one port of each address that it is given.
 *
 *   peer ADDRESS...
 *
 * It prints one line of JSON an address, {"address":"127.0.0.1","port":40123}, and ends with its parent.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "peer.h"

#define MAX_ADDRESSES 8

static char data[PEER_DATA_BYTES];

static void die(const char *what)
{
	fprintf(stderr, "peer: %s: %s\n", what, strerror(errno));
	exit(70);
}

static int listen_at(const char *address)
{
	struct sockaddr_in at = { .sin_family = AF_INET };
	socklen_t length = sizeof at;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (inet_pton(AF_INET, address, &at.sin_addr) != 1) {
		errno = EINVAL;
		die(address);
	}
	if (fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof at) < 0 || listen(fd, 16) < 0 ||
	    getsockname(fd, (struct sockaddr *)&at, &length) < 0)
		die(address);
	printf("{\"address\":\"%s\",\"port\":%d}\n", address, (int)ntohs(at.sin_port));
	return fd;
}

/* False when the other end is gone. */
static int take_all(int fd, size_t length)
{
	return recv(fd, data, length, MSG_WAITALL) == (ssize_t)length;
}

static int give_all(int fd, size_t length)
{
	for (size_t done = 0; done < length;) {
		ssize_t n = send(fd, data + done, length - done, MSG_NOSIGNAL);

		if (n <= 0)
			return 0;
		done += (size_t)n;
	}
	return 1;
}

static void serve(int fd)
{
	char asked;
	int on = 1;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	while (recv(fd, &asked, 1, 0) == 1) {
		if (asked == PEER_TAKE && !take_all(fd, sizeof data))
			return;
		if (!give_all(fd, asked == PEER_GIVE ? sizeof data : 1))
			return;
	}
}

/* The last one of those that it may use; probe.c takes the first. */
static void stay_on_the_last_processor(void)
{
	cpu_set_t allowed, last;

	CPU_ZERO(&last);
	if (sched_getaffinity(0, sizeof allowed, &allowed) < 0)
		die("sched_getaffinity");
	for (int i = CPU_SETSIZE - 1; i >= 0; i--)
		if (CPU_ISSET(i, &allowed)) {
			CPU_SET(i, &last);
			break;
		}
	if (sched_setaffinity(0, sizeof last, &last) < 0)
		die("sched_setaffinity");
}

int main(int argc, char **argv)
{
	struct pollfd listeners[MAX_ADDRESSES];
	int count = argc - 1;

	if (count < 1 || count > MAX_ADDRESSES) {
		fprintf(stderr, "usage: peer ADDRESS...\n");
		return 64;
	}
	stay_on_the_last_processor();
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	signal(SIGCHLD, SIG_IGN);
	for (int i = 0; i < count; i++)
		listeners[i] = (struct pollfd){ listen_at(argv[i + 1]), POLLIN, 0 };
	fflush(stdout);
	for (;;) {
		if (poll(listeners, (nfds_t)count, -1) < 0 && errno != EINTR)
			die("poll");
		for (int i = 0; i < count; i++) {
			if (!listeners[i].revents)
				continue;
			int fd = accept4(listeners[i].fd, NULL, NULL, SOCK_CLOEXEC);

			if (fd < 0)
				continue;
			/* A process a connection: a VM that was killed does not close its own, and must not block the next one. */
			if (fork() == 0) {
				prctl(PR_SET_PDEATHSIG, SIGKILL);
				serve(fd);
				_exit(0);
			}
			close(fd);
		}
	}
}
