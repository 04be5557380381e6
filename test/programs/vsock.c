/* Sockets of the guest, for tests:
 *   vsock connect PORT   to the host: standard input goes there, what comes back to standard output
 *   vsock echo PORT      accepts one connection and sends all that comes back until it ends
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

int main(int argc, char **argv)
{
	struct sockaddr_vm address = { .svm_family = AF_VSOCK };
	int fd = socket(AF_VSOCK, SOCK_STREAM, 0);

	if (fd < 0)
		fail("socket");
	if (argc != 3)
		return 2;
	address.svm_port = (unsigned)atoi(argv[2]);
	if (strcmp(argv[1], "connect") == 0) {
		address.svm_cid = VMADDR_CID_HOST;
		if (connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0)
			fail("connect");
		copy(0, fd);
		shutdown(fd, SHUT_WR);
		copy(fd, 1);
		return 0;
	}
	address.svm_cid = VMADDR_CID_ANY;
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)) != 0 || listen(fd, 1) != 0)
		fail("listen");
	int peer = accept(fd, 0, 0);

	if (peer < 0)
		fail("accept");
	printf("%ld bytes\n", copy(peer, peer));
	return 0;
}
