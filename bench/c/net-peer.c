/* The host's end of the device bench's network: net-peer ADDRESS
 * A TCP server on port 7000. The first byte of a connection says what it does until the other side
 * closes: 't' takes bytes, 's' sends them, 'r' returns each message.
 */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define PORT 7000

static char buffer[64 << 10];

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static void serve(int fd)
{
	int on = 1;
	char mode;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	if (read(fd, &mode, 1) != 1)
		return;
	for (;;) {
		ssize_t n = sizeof buffer;

		if (mode != 's')
			n = read(fd, buffer, sizeof buffer);
		if (n <= 0)
			return;
		/* MSG_NOSIGNAL: the guest leaves while there is more. */
		if (mode != 't' && send(fd, buffer, (size_t)n, MSG_NOSIGNAL) < 0)
			return;
	}
}

int main(int argc, char **argv)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(PORT) };
	int listener = socket(AF_INET, SOCK_STREAM, 0), on = 1;

	if (argc != 2 || inet_pton(AF_INET, argv[1], &address.sin_addr) != 1)
		return 64;
	/* Children leave no zombies. */
	signal(SIGCHLD, SIG_IGN);
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(listener, 4) < 0)
		fail("net-peer: bind");
	for (;;) {
		int fd = accept(listener, NULL, NULL);

		if (fd < 0)
			fail("net-peer: accept");
		/* One after the other would wait for ever for a guest that was killed. */
		if (fork() == 0) {
			serve(fd);
			_exit(0);
		}
		close(fd);
	}
}
