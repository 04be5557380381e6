/* A program whose end is heard of before its memory is taken apart, which of a large one can take longer than all the rest of a
 * short life. It is traced for that, until anything else happens to it, or somebody comes who may want to trace it himself. */
#ifndef VMLET_WATCH_H
#define VMLET_WATCH_H

#include <asm/errno.h>
#include <asm/fcntl.h>
#include <asm/signal.h>
#include <linux/fs.h>
#include <linux/ptrace.h>

#include "program.h"
#include "syscall.h"
#include "text.h"
#include "world.h"

/* Of /proc/PID/task/TID/stat, which counts its fields from 1: those that are asked for lie well within so many bytes. proc(5). */
#define STAT_BYTES 512
#define STAT_FLAGS 9
#define STAT_PENDING 31
/* Linux, include/linux/sched.h. */
#define PF_EXITING_ 4
#define SIGKILL_PENDING (1UL << (SIGKILL - 1))
/* A program may have so many signals and still be watched: each stops it, and one that lives by them is not held up for long. */
#define WATCHED_SIGNALS 16
/* Of a program with more, its end is heard of as that of any other. */
#define MAX_THREADS_READ 64

/* How many signals it may still have; 0: it is not watched. One that has ended already is left to whoever reaps it. */
static unsigned char watch_program(long pid)
{
	return call4(ptrace, PTRACE_SEIZE, pid, 0, PTRACE_O_TRACEEXIT) == 0 ? WATCHED_SIGNALS : 0;
}

/* Of one that is held, in place of begin_program. It is seized, and not kept, as only what is seized can be let go again while
 * it runs. */
static unsigned char begin_watched(long pid)
{
	begin_program(pid);
	return watch_program(pid);
}

/* It stops once more for that, and is_ending lets it go. */
static void stop_watching(long pid)
{
	call4(ptrace, PTRACE_INTERRUPT, pid, 0, 0);
}

/* A field behind the name, which may have anything in it but ends with the last ")"; 0 if there is none. */
static unsigned long stat_field(const char *stat, long length, unsigned field)
{
	unsigned long value = 0;
	unsigned at = 2;
	long i = length - 1;

	while (i >= 0 && stat[i] != ')')
		i--;
	if (i < 0)
		return 0;
	for (i++; i < length && at < field; i++)
		at += stat[i] == ' ';
	for (; i < length && stat[i] >= '0' && stat[i] <= '9'; i++)
		value = value * 10 + (unsigned long)(stat[i] - '0');
	return at == field ? value : 0;
}

/* On its way out, or about to be sent there, which nothing changes any more. */
static int is_thread_ending(long tasks, const char *name)
{
	static char path[32], stat[STAT_BYTES];
	const char *end = path + sizeof(path);

	append(append(path, end, name), end, "/stat");
	long fd = call4(openat, tasks, path, O_RDONLY | O_CLOEXEC, 0);

	if (fd < 0)
		return fd == -ENOENT || fd == -ESRCH;
	long length = call3(read, fd, stat, sizeof(stat));

	call1(close, fd);
	return length == -ESRCH || (stat_field(stat, length, STAT_FLAGS) & PF_EXITING_) ||
	       (stat_field(stat, length, STAT_PENDING) & SIGKILL_PENDING);
}

/* Whether none of its other threads goes on: exit_group, or a signal, ends all of them. */
static int are_others_ending(long pid, long tasks)
{
	static char entries[2048];
	unsigned id, count = 0;
	long length;

	call3(lseek, tasks, 0, SEEK_SET);
	while ((length = call3(getdents64, tasks, entries, sizeof(entries))) > 0) {
		for (long at = 0; at < length;) {
			const struct dirent64 *entry = (const struct dirent64 *)(entries + at);

			at += entry->length;
			if (!read_number(entry->name, &id) || id == pid)
				continue;
			if (++count > MAX_THREADS_READ || !is_thread_ending(tasks, entry->name))
				return 0;
		}
	}
	return length == 0;
}

/* A folder of /proc has a link for each folder in it, and two of its own. */
static int is_whole_ending(long pid)
{
	struct statx about;
	long fd = pid == held_tasks.pid ? held_tasks.fd : open_tasks(pid);
	long result = fd < 0 ? fd : call5(statx, fd, "", AT_EMPTY_PATH_, STATX_NLINK, &about);
	int is_ending = result == 0 && (about.stx_nlink == 3 || are_others_ending(pid, fd));

	if (pid != held_tasks.pid)
		call1(close, fd);
	return is_ending;
}

/* Of a watched program that has stopped: true if it is about to end, with the status that it will have. Otherwise it goes on
 * with the signal that it has got, and unwatched if that was one too many, or none. */
static int is_ending(long pid, int *status, unsigned char *watched)
{
	int event = *status >> 16, signal = event ? 0 : (*status >> 8) & 0xff;
	unsigned long told = 0;

	if (event == PTRACE_EVENT_EXIT && is_whole_ending(pid) && call4(ptrace, PTRACE_GETEVENTMSG, pid, 0, &told) == 0) {
		*status = (int)told;
		return 1;
	}
	*watched = event || !*watched ? 0 : (unsigned char)(*watched - 1);
	call4(ptrace, *watched ? PTRACE_CONT : PTRACE_DETACH, pid, 0, signal);
	return 0;
}

#endif
