/* Sockets of guest and host, for tests:
 *   vsock connect PORT [CID]   to the host, or to CID: standard input goes there, what comes back to standard output
 *   vsock accept PORT          the same over the first connection that comes
 *   vsock echo PORT            accepts one connection and sends all that comes back until it ends
 */
#include <linux/vm_sockets.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

/* Copies until `from` ends; the number of bytes. */
static long copy(int from, int to)
{
	static char buffer[65536];
	long total = 0;
	ssize_t count;

	while ((count = read(from, buffer, sizeof(buffer))) > 0) {
		for (ssize_t done = 0, more; done < count; done += more) {
			more = write(to, buffer + done, (size_t)(count - done));
			if (more < 0)
				fail("write");
		}
		total += count;
	}
	if (count < 0)
		fail("read");
	return total;
}

/* One way after the other. */
static void talk(int fd)
{
	copy(0, fd);
	shutdown(fd, SHUT_WR);
	copy(fd, 1);
}

int main(int argc, char **argv)
{
	struct sockaddr_vm address = { .svm_family = AF_VSOCK };
	int fd = socket(AF_VSOCK, SOCK_STREAM, 0);

	if (fd < 0)
		fail("socket");
	if (argc < 3 || argc > 4)
		return 2;
	address.svm_port = (unsigned)atoi(argv[2]);
	if (strcmp(argv[1], "connect") == 0) {
		address.svm_cid = argc == 4 ? (unsigned)atoi(argv[3]) : VMADDR_CID_HOST;
		if (connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0)
			fail("connect");
		talk(fd);
		return 0;
	}
	address.svm_cid = VMADDR_CID_ANY;
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)) != 0 || listen(fd, 1) != 0)
		fail("listen");
	int peer = accept(fd, 0, 0);

	if (peer < 0)
		fail("accept");
	if (strcmp(argv[1], "accept") == 0)
		talk(peer);
	else
		printf("%ld bytes\n", copy(peer, peer));
	return 0;
}
