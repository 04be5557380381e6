/* Descriptors, and files of the kernel's that hold a line. */
#ifndef VMLET_LAUNCHER_LINES_H
#define VMLET_LAUNCHER_LINES_H

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

static void close_from(int first)
{
	if (close_range((unsigned int)first, ~0U, 0) == 0)
		return;
	const int limit = (int)sysconf(_SC_OPEN_MAX);

	for (int fd = first; fd < limit; fd++)
		close(fd);
}

static bool read_line(int folder, const char *name, char *text, size_t size)
{
	int fd = openat(folder, name, O_RDONLY | O_CLOEXEC);
	ssize_t length = fd < 0 ? -1 : read(fd, text, size - 1);

	if (fd >= 0)
		close(fd);
	if (length < 0)
		return false;
	text[length] = 0;
	text[strcspn(text, "\n")] = 0;
	return true;
}

/* False with errno. */
static bool write_line(int folder, const char *name, const char *text)
{
	int fd = openat(folder, name, O_WRONLY | O_CLOEXEC);
	bool is_written = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
	int error = errno;

	if (fd >= 0)
		close(fd);
	errno = error;
	return is_written;
}

#endif
