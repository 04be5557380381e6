/* Sessions of commands that have been killed: their processes follow, whatever groups they have made for themselves. */
#ifndef VMLET_AGENT_SESSION_H
#define VMLET_AGENT_SESSION_H

#include <asm/signal.h>
#include <linux/fcntl.h>

#include "../text.h"
#include "../world.h"
#include "spawn.h"
#include "stream.h"

/* Killed again and again, until nothing of the session is left: who forks meanwhile is met the next time. */
#define KILL_ROUNDS 32

/* The session that a process belongs to, 0 if it has gone. */
static long session_of(const char *pid)
{
	char path[64], text[1024];
	long fd, length, session = 0;
	char *at;

	append(append(append(path, path + sizeof(path), "/proc/"), path + sizeof(path), pid), path + sizeof(path), "/stat");
	fd = call3(open, path, O_RDONLY | O_CLOEXEC, 0);
	length = fd < 0 ? 0 : call3(read, fd, text, sizeof(text) - 1);
	call1(close, fd);
	if (length <= 0)
		return 0;
	text[length] = 0;
	/* Behind the name, which may have anything in it: state, parent, group, session. */
	for (at = text + length; at > text && *at != ')';)
		at--;
	for (int blanks = 0; *at && blanks < 4; at++)
		blanks += *at == ' ';
	while (*at >= '0' && *at <= '9')
		session = session * 10 + (*at++ - '0');
	return session;
}

/* Sessions whose processes are to be killed. */
static unsigned doomed[MAX_STREAMS], doomed_count;

static int is_doomed(long session)
{
	for (unsigned i = 0; i < doomed_count; i++)
		if (doomed[i] == session)
			return 1;
	return 0;
}

/* In a process of its own: there may be thousands to look at. */
static void kill_doomed(void)
{
	static char entries[8192];

	for (int round = 0; round < KILL_ROUNDS; round++) {
		int found = 0;
		long fd = call3(open, "/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);

		for (long length; (length = call3(getdents64, fd, entries, sizeof(entries))) > 0;) {
			for (long at = 0; at < length;) {
				struct dirent64 *entry = (struct dirent64 *)(entries + at);
				unsigned pid;

				at += entry->length;
				/* Leaders have been killed. */
				if (!read_number(entry->name, &pid) || is_doomed(pid) || !is_doomed(session_of(entry->name)))
					continue;
				call2(kill, pid, SIGKILL);
				found = 1;
			}
		}
		call1(close, fd);
		if (!found)
			return;
	}
}

/* Once for all that were killed. */
static void kill_sessions(void)
{
	if (!doomed_count)
		return;
	if (call0(fork) == 0) {
		close_from(REQUEST_FD);
		kill_doomed();
		call1(exit_group, 0);
	}
	doomed_count = 0;
}

#endif
