/* A container's monitor, started together with `create`: vmm/oci/early-monitor.ts. Both are Node, and each start takes as long
 * as the other's. Until `create` has admitted it, it does nothing, and ends with the process that the front becomes. */
#ifndef VMLET_FRONT_CREATE_H
#define VMLET_FRONT_CREATE_H

#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include "container.h"
#include "launch.h"

static const char *const create_values[] = {"bundle", "b", "pid-file", "preserve-fds", NULL};
static const char *const create_flags[] = {"no-pivot", "no-new-keyring", NULL};

/* The container's name if the words are such that its monitor can be started before Node has read them: one that has a terminal
 * gets that from `create`. */
static const char *id_of_create(char **words, int count)
{
	const char *id = NULL;

	for (int i = 0; i < count; i++) {
		const char *name = words[i] + (words[i][0] == '-') + (words[i][0] == '-' && words[i][1] == '-');
		size_t length = strcspn(name, "=");

		if (words[i][0] != '-') {
			if (id)
				return NULL;
			id = words[i];
		} else if (is_in(create_values, name, length)) {
			if (name[length] != '=' && ++i == count)
				return NULL;
		} else if (!is_in(create_flags, name, length) || name[length] == '=') {
			return NULL;
		}
	}
	return id && is_name(id) ? id : NULL;
}

/* As Node's resolve() leaves it: the path is what the monitor is known by. */
static bool is_plain_path(const char *path)
{
	size_t length = strlen(path);

	return path[0] == '/' && length > 1 && path[length - 1] != '/' && !strstr(path, "//") && !strstr(path, "/./") &&
	       !strstr(path, "/../") && !(length > 2 && strcmp(path + length - 2, "/.") == 0) &&
	       !(length > 3 && strcmp(path + length - 3, "/..") == 0);
}

static void become_monitor(char *front, char *folder, int fd, pid_t parent)
{
	char *words[] = {front, "monitor", folder, NULL};
	char number[16];

	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != parent)
		_exit(EXIT_NO_NODE);
	setsid();
	for (int signal = 1; signal < NSIG; signal++)
		sigaction(signal, &(struct sigaction){.sa_handler = SIG_DFL}, NULL);
	snprintf(number, sizeof(number), "%d", fd);
	if (setenv("VMLET_EARLY_MONITOR", number, 1) < 0 || fcntl(fd, F_SETFD, 0) < 0 || chdir("/") < 0)
		_exit(EXIT_NO_NODE);
	_exit(become_node(3, words, NULL, NULL));
}

/* The option by which `create` knows of it; NULL: there is none, and `create` makes one itself. */
static char *start_monitor(char *front, const char *root, char **words, int count)
{
	static char option[64];
	char folder[PATH_MAX];
	const char *id = id_of_create(words, count);
	int pair[2];

	if (!id || !is_plain_path(root) || is_there(root, id))
		return NULL;
	if (snprintf(folder, sizeof(folder), "%s/%s", root, id) >= (int)sizeof(folder))
		return NULL;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return NULL;
	pid_t parent = getpid();
	pid_t pid = fork();

	if (pid == 0)
		become_monitor(front, folder, pair[1], parent);
	close(pair[1]);
	if (pid < 0 || fcntl(pair[0], F_SETFD, 0) < 0) {
		close(pair[0]);
		return NULL;
	}
	snprintf(option, sizeof(option), "--early-monitor=%d,%d", pid, pair[0]);
	return option;
}

#endif
