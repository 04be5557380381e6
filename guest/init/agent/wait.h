/* The agent's sleep: what each stream, the link and the children may wake it for. */
#ifndef VMLET_AGENT_WAIT_H
#define VMLET_AGENT_WAIT_H

#include <asm/poll.h>

#include "../signals.h"
#include "guest.h"
#include "link.h"
#include "stream.h"

#define SIGNALFD_BYTES 128
#define SIGNALS_READ 8
#define POLLS_A_STREAM 3
/* The rings are looked at without a wake-up, in case that somebody has taken it: ever less often while nothing comes. */
#define FIRST_LOOK_MS 1000
#define LAST_LOOK_MS 64000

static struct poll_fd polls[4 + POLLS_A_STREAM * MAX_STREAMS];
static struct { unsigned short stream; unsigned char ready; } owners[4 + POLLS_A_STREAM * MAX_STREAMS];
static unsigned long look_ms = FIRST_LOOK_MS;
/* When the host is tried to be reached again, ms. */
static unsigned long next_try;

static void note_signals(void)
{
	static char signals[SIGNALS_READ * SIGNALFD_BYTES];
	long length = call3(read, child_signals, signals, sizeof(signals));

	for (long at = 0; at + SIGNALFD_BYTES <= length; at += SIGNALFD_BYTES) {
		unsigned number = *(unsigned *)(signals + at);

		if (number == SIGCHLD)
			child_changed = 1;
		else if (number == SIGTERM)
			asked_reboot = 1;
		else
			asked_off = 1;
	}
}

static unsigned add_poll(unsigned count, long fd, short events, unsigned stream, unsigned char ready)
{
	polls[count] = (struct poll_fd){ (int)fd, events, 0 };
	owners[count].stream = (unsigned short)stream;
	owners[count].ready = ready;
	return count + 1;
}

/* What a stream waits for. */
static unsigned add_stream_polls(unsigned count, unsigned i)
{
	struct stream *stream = &agent->streams[i];
	int has_room = ring_room(&link.output) > CONTROL_ROOM + FRAME_HEADER;

	if (stream->kind == STREAM_COMMAND) {
		if (stream->report >= 0)
			/* Nothing else happens before its exec has. */
			return stream->flags & EXEC_HOLD && !stream->has_begun ?
				       count :
				       add_poll(count, stream->report, POLLIN, i, READY_REPORT);
		if (stream->has_process_ended)
			return count;
		/* Without an event asked for, the end of the last reader is told all the same. */
		if (stream->input >= 0 && (stream->buffer || !(stream->flags & EXEC_TERMINAL)))
			count = add_poll(count, stream->input, stream->buffer ? POLLOUT : 0, i, READY_INPUT);
		if (stream->output >= 0 && stream->out_credit && has_room)
			count = add_poll(count, stream->output, POLLIN, i, READY_OUTPUT);
		if (stream->error >= 0 && stream->error_credit && has_room)
			count = add_poll(count, stream->error, POLLIN, i, READY_ERROR);
	} else if (stream->kind == STREAM_DETACHED) {
		if (stream->buffer)
			count = add_poll(count, stream->input, POLLOUT, i, READY_INPUT);
		if (stream->output >= 0)
			count = add_poll(count, stream->output, POLLIN, i, READY_OUTPUT);
		if (stream->error >= 0)
			count = add_poll(count, stream->error, POLLIN, i, READY_ERROR);
	} else if (stream->kind == STREAM_READ) {
		if (!stream->ready && stream->out_credit && has_room)
			count = add_poll(count, stream->output, POLLIN, i, READY_OUTPUT);
	} else if (stream->kind == STREAM_WRITE && stream->buffer) {
		count = add_poll(count, stream->input, POLLOUT, i, READY_INPUT);
	}
	return count;
}

/* When somebody must be served though nothing comes; 0: never. */
static unsigned long next_deadline(void)
{
	unsigned long next = link.state == LINK_DOWN ? next_try : 0;

	for (unsigned i = 0; i < streams_end; i++) {
		struct stream *stream = &agent->streams[i];

		if (stream->kind == STREAM_PORT && (!next || stream->port.next < next))
			next = stream->port.next;
	}
	return next;
}

/* Somebody may not send what he has. */
static int is_credit_needed(void)
{
	for (unsigned i = 0; i < streams_end; i++) {
		struct stream *stream = &agent->streams[i];

		if (stream->kind != STREAM_FREE && (!stream->out_credit || !stream->error_credit))
			return 1;
	}
	return 0;
}

/* True if the rings have changed since `input` and `output` were the counts of what is done. */
static int has_ring_changed(unsigned input, unsigned output)
{
	return *link.input.head != input || (is_output_blocked && *link.output.tail != output);
}

/* Sleeps until something comes: a frame, a descriptor, a signal, a deadline. */
static void wait_for_work(unsigned input, unsigned output)
{
	static char dropped[256];
	unsigned count = add_poll(0, child_signals, POLLIN, MAX_STREAMS, 0);
	unsigned long deadline = next_deadline(), now = deadline ? now_ms() : 0;
	struct timespec64 time = { 0, 0 };
	long ms = !deadline ? -1 : deadline > now ? (long)(deadline - now) : 0;
	int is_looking = 0;

	if (link.kind == LINK_CHANNEL) {
		count = add_poll(count, wake_up, POLLIN, MAX_STREAMS, 1);
		if (!is_busy) {
			/* Pairs with the monitor's: it changes a count, and then looks whether we wait. */
			channel->guest_waits = is_output_blocked    ? CHANNEL_WAITS_FOR_ALL :
					       is_credit_needed() ? CHANNEL_WAITS_FOR_INPUT :
								    CHANNEL_WAITS_FOR_REQUESTS;
			__sync_synchronize();
			is_busy = has_ring_changed(input, output);
			unsigned long look = wake_up >= 0 ? look_ms : LOOK_BLINDLY_MS;

			if (ms < 0 || look < (unsigned long)ms)
				ms = (long)look, is_looking = 1;
		}
	} else {
		int wants_input = link.state == LINK_UP && ring_room(&link.input) > 0;
		int wants_output = link.state == LINK_CONNECTING || ring_used(&link.output) > 0;

		count = add_poll(count, link.state == LINK_DOWN ? -1 : link.in, wants_input ? POLLIN : 0, MAX_STREAMS, 2);
		count = add_poll(count, wants_output && link.state != LINK_DOWN ? link.out : -1, POLLOUT, MAX_STREAMS, 3);
	}
	unsigned first = count;

	for (unsigned i = 0; i < streams_end; i++)
		count = add_stream_polls(count, i);
	if (is_busy)
		ms = 0;
	time = (struct timespec64){ ms / 1000, ms % 1000 * 1000000 };
	long ready = call5(ppoll, polls, count, ms < 0 ? 0 : &time, 0, 8);

	if (link.kind == LINK_CHANNEL)
		channel->guest_waits = 0;
	if (ready == 0 && is_looking && look_ms < LAST_LOOK_MS)
		look_ms *= 2;
	if (ready <= 0)
		return;
	look_ms = FIRST_LOOK_MS;
	if (polls[0].revents)
		note_signals();
	if (link.kind == LINK_CHANNEL) {
		if (polls[1].revents & POLLIN)
			call3(read, wake_up, dropped, sizeof(dropped));
		else if (polls[1].revents)
			wake_up = -1;
	} else {
		if (link.state == LINK_CONNECTING && polls[2].revents)
			finish_connecting();
		else if (polls[1].revents)
			fill_link();
	}
	for (unsigned i = first; i < count; i++) {
		struct stream *stream = &agent->streams[owners[i].stream];

		if (!polls[i].revents)
			continue;
		if (owners[i].ready == READY_INPUT && (polls[i].revents & (POLLERR | POLLNVAL)))
			stream->ready |= INPUT_GONE;
		if ((polls[i].revents & (POLLIN | POLLHUP)) == POLLHUP)
			stream->ready |= owners[i].ready == READY_OUTPUT ? OUTPUT_GONE : owners[i].ready == READY_ERROR ? ERROR_GONE : 0;
		stream->ready |= owners[i].ready;
	}
}

#endif
