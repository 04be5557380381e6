/* What a command starts as another process, started together with the command: the monitor of `create`, the relay of a detached
 * `exec` (vmm/oci/early-process.ts). Both are Node, and each start takes as long as the other's. Until the command has admitted
 * it, it does nothing, and ends with the process that the front becomes. */
#ifndef VMLET_FRONT_EARLY_H
#define VMLET_FRONT_EARLY_H

#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include "container.h"
#include "launch.h"

static const char *const create_values[] = {"bundle", "b", "pid-file", "preserve-fds", NULL};
static const char *const create_flags[] = {"no-pivot", "no-new-keyring", NULL};

static const char *const exec_values[] = {"cwd", "env", "e", "user", "u", "additional-gids", "g", "process", "p",
					  "pid-file", "process-label", "apparmor", "cap", "c", "preserve-fds", "cgroup", NULL};
static const char *const exec_flags[] = {"no-new-privs", "ignore-paused", NULL};

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

/* The same of a program that is detached and has no terminal: options come before the name. */
static const char *id_of_exec(char **words, int count)
{
	bool is_detached = false;

	for (int i = 0; i < count; i++) {
		const char *name = words[i] + (words[i][0] == '-') + (words[i][0] == '-' && words[i][1] == '-');
		size_t length = strcspn(name, "=");

		if (words[i][0] != '-')
			return is_detached && is_name(words[i]) ? words[i] : NULL;
		if (strcmp(name, "detach") == 0 || strcmp(name, "d") == 0)
			is_detached = true;
		else if (is_in(exec_values, name, length))
			i += name[length] != '=';
		else if (!is_in(exec_flags, name, length) || name[length] == '=')
			return NULL;
	}
	return NULL;
}

/* As Node's resolve() leaves it: the path is what the monitor is known by. */
static bool is_plain_path(const char *path)
{
	size_t length = strlen(path);

	return path[0] == '/' && length > 1 && path[length - 1] != '/' && !strstr(path, "//") && !strstr(path, "/./") &&
	       !strstr(path, "/../") && !(length > 2 && strcmp(path + length - 2, "/.") == 0) &&
	       !(length > 3 && strcmp(path + length - 3, "/..") == 0);
}

static void become_early(int argc, char **words, int fd, pid_t parent)
{
	char number[16];

	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != parent)
		_exit(EXIT_NO_NODE);
	setsid();
	for (int signal = 1; signal < NSIG; signal++)
		sigaction(signal, &(struct sigaction){.sa_handler = SIG_DFL}, NULL);
	snprintf(number, sizeof(number), "%d", fd);
	if (setenv("VMLET_EARLY", number, 1) < 0 || fcntl(fd, F_SETFD, 0) < 0 || chdir("/") < 0)
		_exit(EXIT_NO_NODE);
	_exit(become_node(argc, words, 0, NULL, NULL));
}

/* The option by which the command knows of it; NULL: there is none, and the command starts one itself. */
static char *start_early(int argc, char **words)
{
	static char option[64];
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return NULL;
	pid_t parent = getpid();
	pid_t pid = fork();

	if (pid == 0)
		become_early(argc, words, pair[1], parent);
	close(pair[1]);
	if (pid < 0 || fcntl(pair[0], F_SETFD, 0) < 0) {
		close(pair[0]);
		return NULL;
	}
	snprintf(option, sizeof(option), "--early=%d,%d", pid, pair[0]);
	return option;
}

/* The container's folder, as Node has it; false: not for the front. */
static bool folder_of(const char *root, const char *id, char *folder, size_t size)
{
	return id && is_plain_path(root) && snprintf(folder, size, "%s/%s", root, id) < (int)size;
}

static char *start_monitor(char *front, const char *root, char **words, int count)
{
	const char *id = id_of_create(words, count);
	char folder[PATH_MAX];
	char *monitor[] = {front, "monitor", folder, NULL};

	if (!folder_of(root, id, folder, sizeof(folder)) || is_there(root, id))
		return NULL;
	return start_early(3, monitor);
}

static char *start_relay(char *front, const char *root, char **words, int count)
{
	const char *id = id_of_exec(words, count);
	char folder[PATH_MAX];
	char order[PATH_MAX + 32];
	char *relay[] = {front, "relay", folder, order, NULL};

	if (!folder_of(root, id, folder, sizeof(folder)) || !is_there(root, id))
		return NULL;
	snprintf(order, sizeof(order), "%s/exec-%d.json", folder, getpid());
	return start_early(4, relay);
}

#endif
