/* What may take long is done by a process of its own, whose exit status is the error number. */
#ifndef VMLET_AGENT_TASK_H
#define VMLET_AGENT_TASK_H

#include <asm/signal.h>

#include "spawn.h"
#include "stream.h"

/* Words of the request, which the process has its own copy of: the agent's memory is not in it. */
static char task_text[FRAME_PAYLOAD + 1];

/* `work` gives 0 or an error. */
static void start_task(struct stream *stream, long (*work)(const char *text), const char *path)
{
	static const unsigned long no_signals = 0;

	append(task_text, task_text + MAX_PATH + 1, path);
	long pid = call0(fork);

	if (pid == 0) {
		/* The pipes of commands must not stay open for its sake. */
		close_from(REQUEST_FD);
		call4(rt_sigprocmask, SIG_SETMASK, &no_signals, 0, 8);
		call1(exit_group, -work(task_text));
	}
	stream->kind = STREAM_TASK;
	stream->pid = pid;
	if (pid < 0)
		fail_with(stream, pid, "the guest has no room for another process");
}

static void serve_task(struct stream *stream)
{
	if (!stream->has_process_ended)
		return;
	int error = (stream->status >> 8) & 0xff;

	if (stream->is_cancelled)
		fail_with(stream, -ECANCELED, "");
	else if (stream->status & 0x7f)
		fail_with(stream, -EINTR, "its process has been killed");
	else if (error)
		fail_with(stream, -error, "");
	else
		finish_with(stream, 0, 0);
}

#endif
