/* A request to a container's monitor at its socket, as vmm/oci/monitor-messages.ts has it: one line of JSON, and one back. */
#ifndef VMLET_FRONT_MONITOR_H
#define VMLET_FRONT_MONITOR_H

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

#include "container.h"

#define MAX_REPLY 65536
#define REPLY_OK "{\"ok\":true}\n"
/* Between two tries to reach a monitor that is not that far yet. */
#define RETRY_MS 2

static long long now_ms(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000LL + time.tv_nsec / 1000000;
}

/* Below 0: nobody listens. By the folder's descriptor the path fits, however long the folder's own is. */
static int connect_monitor(const struct container *container)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -1;
	snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/control.sock", container->fd);
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
		return fd;
	close(fd);
	return -1;
}

/*
 * False: nothing has been asked, or no answer has come. A limit below 0 is none; an answer to a request that went out is waited
 * for as long as somebody may give one.
 */
static bool ask_monitor(const struct container *container, const char *request, int limit_ms, char *reply)
{
	long long deadline = limit_ms < 0 ? -1 : now_ms() + limit_ms;
	size_t length = 0;
	int fd;

	while ((fd = connect_monitor(container)) < 0) {
		if (monitor_life(container) != ALIVE || (deadline >= 0 && now_ms() >= deadline))
			return false;
		nanosleep(&(struct timespec){.tv_nsec = RETRY_MS * 1000000L}, NULL);
	}
	if (send(fd, request, strlen(request), MSG_NOSIGNAL) != (ssize_t)strlen(request)) {
		close(fd);
		return false;
	}
	for (;;) {
		struct pollfd wait = {.fd = fd, .events = POLLIN};
		long long left = deadline < 0 ? -1 : deadline - now_ms();
		int ready = left < -1 || (deadline >= 0 && left <= 0) ? 0 : poll(&wait, 1, (int)left);

		if (ready < 0 && errno == EINTR)
			continue;
		ssize_t count = ready <= 0 ? -1 : recv(fd, reply + length, MAX_REPLY - 1 - length, 0);

		if (count < 0 && ready > 0 && errno == EINTR)
			continue;
		if (count > 0 && length + (size_t)count < MAX_REPLY - 1) {
			length += (size_t)count;
			continue;
		}
		close(fd);
		reply[length] = 0;
		return count == 0 && length > 0 && reply[length - 1] == '\n';
	}
}

#endif
