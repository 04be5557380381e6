/* Processes for commands: one is always forked ahead of need, with its pipes, and waits to be told what it is to become;
 * so a command pays for its exec alone. */
#ifndef VMLET_AGENT_SPAWN_H
#define VMLET_AGENT_SPAWN_H

#include <asm/fcntl.h>
#include <asm/signal.h>
#include <linux/close_range.h>
#include <linux/mman.h>
#include <linux/resource.h>
#include <linux/sched.h>

#include "../signals.h"
#include "become.h"
#include "stream.h"

#define AF_UNIX 1
#define SOCK_SEQPACKET 5
#define CLOSE_UP_TO 4096
#define NORMAL_PRIORITY 0
#define COMMAND_UMASK 022
/* Of the memory that is shared, what an ordinary request uses. */
#define WARM_BYTES 8192
#define PAGE 4096

struct newcomer {
	long pid, request, input, output, error;
	struct start *start;
};

static struct newcomer spare;
/* Memory of the last command that has begun, for the next. */
static struct start *idle_start;
/* What init has changed of itself, and its children must not have. */
static struct { unsigned long soft, hard; } file_limit;
static int is_init;

/* Only read: the agent may have written the request already. */
static void warm_start(const struct start *start)
{
	for (unsigned i = 0; i < WARM_BYTES; i += PAGE)
		(void)*(const volatile char *)((const char *)start + i);
	(void)*(char *const volatile *)&start->words[0];
}

static void close_from(unsigned first)
{
	if (call3(close_range, first, ~0U, 0) == 0)
		return;
	for (unsigned fd = first; fd < CLOSE_UP_TO; fd++)
		call1(close, fd);
}

/* The new process. All that can be done before the request is known is done before. */
static void wait_for_request(struct newcomer *self)
{
	static const unsigned long no_signals = 0;
	static const int priority = 0;
	/* Root's own; for others, become_user. */
	static const unsigned root_group = 0;
	char go;

	call0(setsid);
	call2(dup2, self->input, 0);
	call2(dup2, self->output, 1);
	call2(dup2, self->error, 2);
	if (self->request != REQUEST_FD)
		call3(dup3, self->request, REQUEST_FD, O_CLOEXEC);
	/* Another command's pipes would never end while they are open here. */
	close_from(NULL_FD);
	call3(open, "/dev/null", O_RDONLY | O_CLOEXEC, 0);
	if (call1(chdir, ROOT_HOME) != 0)
		call1(chdir, "/");
	if (is_init) {
		/* Init's handlers would take what is meant for the command, and do nothing with it here. */
		handle(SIGUSR1, SIG_DFL);
		handle(SIGUSR2, SIG_DFL);
		handle(SIGTERM, SIG_DFL);
		call3(sched_setscheduler, 0, SCHED_NORMAL, &priority);
		call3(setpriority, 0, 0, NORMAL_PRIORITY);
	}
	call4(rt_sigprocmask, SIG_SETMASK, &no_signals, 0, 8);
	call4(prlimit64, 0, RLIMIT_NOFILE, &file_limit, 0);
	call1(umask, COMMAND_UMASK);
	if (is_init)
		call2(setgroups, 1, &root_group);
	warm_start(self->start);
	if (call3(read, REQUEST_FD, &go, 1) != 1)
		call1(exit_group, 0);
	int status = become_command(self->start);

	call3(write, REQUEST_FD, "", 1);
	call1(exit_group, status);
}

static struct start *take_start(void)
{
	struct start *start = idle_start;

	idle_start = 0;
	if (start)
		return start;
	long at = call6(mmap, 0, sizeof(*start), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return (unsigned long)at > -4096UL ? 0 : (struct start *)at;
}

static void leave_start(struct start *start)
{
	if (!start)
		return;
	if (idle_start)
		call2(munmap, start, sizeof(*start));
	else
		idle_start = start;
}

/* Its process may still look at it. */
static void drop_start(struct start *start)
{
	if (start)
		call2(munmap, start, sizeof(*start));
}

static void close_pair(int *pair)
{
	for (int i = 0; i < 2; i++)
		if (pair[i] >= 0)
			call1(close, pair[i]);
}

/* Forks; 0, or an error. */
static long make_newcomer(struct newcomer *newcomer)
{
	int pairs[4][2] = { { -1, -1 }, { -1, -1 }, { -1, -1 }, { -1, -1 } };
	struct start *start = take_start();
	long result = start ? 0 : -ENOMEM;

	for (int i = 0; i < 3 && result == 0; i++)
		result = call2(pipe2, pairs[i], O_CLOEXEC);
	if (result == 0)
		result = call4(socketpair, AF_UNIX, SOCK_SEQPACKET | O_CLOEXEC, 0, pairs[3]);
	if (result == 0) {
		result = call0(fork);
		if (result == 0) {
			struct newcomer self = { 0, pairs[3][1], pairs[0][0], pairs[1][1], pairs[2][1], start };

			wait_for_request(&self);
		}
	}
	if (result < 0) {
		for (int i = 0; i < 4; i++)
			close_pair(pairs[i]);
		leave_start(start);
		return result;
	}
	call1(close, pairs[0][0]);
	call1(close, pairs[1][1]);
	call1(close, pairs[2][1]);
	call1(close, pairs[3][1]);
	*newcomer = (struct newcomer){ result, pairs[3][0], pairs[0][1], pairs[1][0], pairs[2][0], start };
	call3(fcntl, newcomer->input, F_SETFL, O_NONBLOCK);
	call3(fcntl, newcomer->output, F_SETFL, O_NONBLOCK);
	call3(fcntl, newcomer->error, F_SETFL, O_NONBLOCK);
	return 0;
}

static void make_spare(void)
{
	if (!spare.pid && make_newcomer(&spare) != 0)
		spare.pid = 0;
}

/* It has been killed, or is to go. */
static void drop_spare(void)
{
	if (!spare.pid)
		return;
	call1(close, spare.request);
	call1(close, spare.input);
	call1(close, spare.output);
	call1(close, spare.error);
	drop_start(spare.start);
	spare.pid = 0;
}

/* The spare one, or one that is forked now. */
static long take_newcomer(struct newcomer *newcomer)
{
	if (!spare.pid)
		return make_newcomer(newcomer);
	*newcomer = spare;
	spare.pid = 0;
	return 0;
}

#endif
