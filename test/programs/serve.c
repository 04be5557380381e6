/* Servers of a guest, for tests of published ports: TCP 7 sends back what comes, TCP 9 counts what comes until its end and then
 * says how much that was, UDP 7 sends back what comes. Says "ready" once all listen. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define MOST 512
enum { ECHO, SINK, DATAGRAMS, FIRST };

static struct pollfd fds[MOST];
static struct { int counts; unsigned long bytes, sum; } ends[MOST];
static unsigned char buffer[65536];

static int listen_at(int type, int port)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(port) };
	int fd = socket(AF_INET, type, 0), yes = 1;

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)) != 0 || (type == SOCK_STREAM && listen(fd, 256) != 0)) {
		perror("listen");
		exit(1);
	}
	return fd;
}

static int write_all(int fd, const unsigned char *bytes, size_t length)
{
	for (ssize_t count; length > 0; bytes += count, length -= (size_t)count)
		if ((count = write(fd, bytes, length)) <= 0)
			return 0;
	return 1;
}

/* False once it has ended. */
static int serve(int at)
{
	ssize_t count = read(fds[at].fd, buffer, sizeof(buffer));
	char line[64];

	if (count < 0)
		return 0;
	if (!ends[at].counts)
		return count > 0 && write_all(fds[at].fd, buffer, (size_t)count);
	for (ssize_t i = 0; i < count; i++)
		ends[at].sum = (ends[at].sum * 31 + buffer[i]) & 0xffffffff;
	ends[at].bytes += (unsigned long)count;
	if (count > 0)
		return 1;
	snprintf(line, sizeof(line), "%lu %lu\n", ends[at].bytes, ends[at].sum);
	write_all(fds[at].fd, (unsigned char *)line, strlen(line));
	return 0;
}

int main(void)
{
	int count = FIRST;

	signal(SIGPIPE, SIG_IGN);
	fds[ECHO] = (struct pollfd){ .fd = listen_at(SOCK_STREAM, 7), .events = POLLIN };
	fds[SINK] = (struct pollfd){ .fd = listen_at(SOCK_STREAM, 9), .events = POLLIN };
	fds[DATAGRAMS] = (struct pollfd){ .fd = listen_at(SOCK_DGRAM, 7), .events = POLLIN };
	puts("ready");
	fflush(stdout);
	for (;;) {
		if (poll(fds, (nfds_t)count, -1) < 0 && errno != EINTR)
			return 1;
		for (int at = count - 1; at >= FIRST; at--) {
			if (!fds[at].revents || serve(at))
				continue;
			close(fds[at].fd);
			count--;
			fds[at] = fds[count];
			ends[at] = ends[count];
		}
		for (int at = ECHO; at <= SINK; at++) {
			int fd = fds[at].revents && count < MOST ? accept(fds[at].fd, 0, 0) : -1;

			if (fd < 0)
				continue;
			memset(&ends[count], 0, sizeof(ends[count]));
			ends[count].counts = at == SINK;
			fds[count++] = (struct pollfd){ .fd = fd, .events = POLLIN };
		}
		if (fds[DATAGRAMS].revents) {
			struct sockaddr_in from;
			socklen_t size = sizeof(from);
			ssize_t length = recvfrom(fds[DATAGRAMS].fd, buffer, sizeof(buffer), 0, (struct sockaddr *)&from, &size);

			if (length >= 0)
				sendto(fds[DATAGRAMS].fd, buffer, (size_t)length, 0, (struct sockaddr *)&from, size);
		}
	}
}
