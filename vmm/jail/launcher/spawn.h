/* Which process becomes the program: this one, process 1 of a PID namespace, or one of a session of its own. Of the two latter the
 * number is left in the root's file NAME.pid once the program runs. */
#ifndef VMLET_LAUNCHER_SPAWN_H
#define VMLET_LAUNCHER_SPAWN_H

#include <sys/wait.h>

#include "root.h"

struct spawn {
	/* Of --daemonize; otherwise -1. */
	int null_fd;
};

static struct spawn prepare_spawn(const struct options *options)
{
	struct spawn spawn = {.null_fd = -1};

	/* Above the standard files, also where one of them is closed. */
	if (options->daemonize) {
		spawn.null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
		if (spawn.null_fd >= 0)
			spawn.null_fd = fcntl(spawn.null_fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
		if (spawn.null_fd < 0)
			fail("/dev/null: %s", strerror(errno));
	}
	return spawn;
}

/* One that is there is of a former program, which may have made it a link. */
static void write_pid(const struct options *options, const struct root *root, pid_t pid)
{
	const char *name = text_of("%s.pid", options->exec_name);
	int fd;

	unlinkat(root->fd, name, 0);
	fd = openat(root->fd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
	if (fd < 0 || dprintf(fd, "%d", pid) < 0)
		say("%s/%s: %s", root->path, name, strerror(errno));
	if (fd >= 0)
		close(fd);
}

/* The pipe ends without a word when the program has taken this process's place, and with one byte when that has failed. */
static _Noreturn void wait_for_start(const struct options *options, const struct root *root, int fd, pid_t pid)
{
	ssize_t count;
	char byte;

	while ((count = read(fd, &byte, 1)) < 0 && errno == EINTR)
		continue;
	if (count != 0)
		_exit(EXIT_FAILED);
	write_pid(options, root, pid);
	_exit(0);
}

/* Returns in the process that is to become the program. */
static void become_process(const struct options *options, const struct root *root, const struct spawn *spawn)
{
	const bool leads_session = getsid(0) == getpid();
	int pair[2];
	int status;
	pid_t pid;

	if (!options->daemonize && !options->new_pid_ns)
		return;
	if (spawn->null_fd >= 0) {
		pid = fork();
		if (pid < 0)
			fail("--daemonize: %s", strerror(errno));
		if (pid > 0) {
			while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
				continue;
			_exit(WIFEXITED(status) ? WEXITSTATUS(status) : EXIT_FAILED);
		}
		setsid();
	}
	if (pipe2(pair, O_CLOEXEC) < 0)
		fail("pipe: %s", strerror(errno));
	pid = (pid_t)syscall(SYS_clone, SIGCHLD | (options->new_pid_ns ? CLONE_NEWPID : 0), NULL, NULL, NULL, NULL);
	if (pid < 0)
		fail("%s: %s", options->new_pid_ns ? "--new-pid-ns" : "--daemonize", strerror(errno));
	if (pid > 0) {
		close(pair[1]);
		wait_for_start(options, root, pair[0], pid);
	}
	close(pair[0]);
	failure_fd = pair[1];
	/* A session hears of its leader's end by a signal that would end the program. */
	if (!options->daemonize && leads_session)
		setsid();
}

static void leave_standard_files(const struct spawn *spawn)
{
	for (int fd = STDIN_FILENO; spawn->null_fd >= 0 && fd <= STDERR_FILENO; fd++)
		dup2(spawn->null_fd, fd);
}

#endif
