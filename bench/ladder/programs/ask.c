/* Asks a process that has guests ready (clones.mjs) for one, and is what that one's command is: its output, its status.
 *   ask SOCKET WORD... */
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static int fail(const char *what)
{
	perror(what);
	return 125;
}

int main(int argc, char **argv)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	char buffer[65536], last = 0;
	uint32_t length = 0;
	int has_last = 0, fd = socket(AF_UNIX, SOCK_STREAM, 0);

	if (argc < 3 || strlen(argv[1]) >= sizeof(address.sun_path)) {
		fputs("usage: ask SOCKET WORD...\n", stderr);
		return 125;
	}
	strcpy(address.sun_path, argv[1]);
	if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		return fail(argv[1]);
	for (int i = 2; i < argc; i++)
		length += (uint32_t)strlen(argv[i]) + 1;
	if (write(fd, &length, sizeof(length)) != sizeof(length))
		return fail("write");
	for (int i = 2; i < argc; i++)
		if (write(fd, argv[i], strlen(argv[i]) + 1) < 0)
			return fail("write");
	/* The last byte is the status, and any byte may be the last. */
	for (ssize_t count; (count = read(fd, buffer, sizeof(buffer))) > 0;) {
		if (has_last && write(STDOUT_FILENO, &last, 1) != 1)
			return fail("write");
		if (count > 1 && write(STDOUT_FILENO, buffer, (size_t)count - 1) != count - 1)
			return fail("write");
		last = buffer[count - 1];
		has_last = 1;
	}
	return has_last ? (unsigned char)last : 125;
}
