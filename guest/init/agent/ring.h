/* A ring of bytes: one direction of the conversation, in the monitor's memory or in the agent's own. */
#ifndef VMLET_AGENT_RING_H
#define VMLET_AGENT_RING_H

#include "../channel.h"
#include "../text.h"

#define RING_BYTES CHANNEL_RING_BYTES

struct ring {
	char *bytes;
	/* Counts of bytes since the start, put and taken. One of the two may be another's, and say anything. */
	volatile unsigned *head, *tail;
	/* The other side sleeps until it is told that something has been put; 0 if that is no word of the ring's. */
	volatile unsigned *asked;
};

struct part {
	char *at;
	size_t length;
};

static unsigned ring_used(const struct ring *ring)
{
	unsigned used = *ring->head - *ring->tail;

	return used > RING_BYTES ? RING_BYTES : used;
}

static unsigned ring_room(const struct ring *ring)
{
	return RING_BYTES - ring_used(ring);
}

/* After something has been put. */
static void tell_of_output(const struct ring *ring)
{
	/* Pairs with the monitor's: it says that it sleeps, and then looks once more. */
	__sync_synchronize();
	if (!*ring->asked)
		return;
	*ring->asked = 0;
	*doorbell = 1;
}

/* After something has been taken: not for every piece, a half is worth the monitor's while. */
static void tell_of_room(const struct ring *ring)
{
	/* Pairs with the monitor's: it says that it waits, and then looks once more for room. */
	__sync_synchronize();
	if (channel->monitor_waits && ring_used(ring) <= RING_BYTES / 2)
		*doorbell = 1;
}

/* The memory of `length` bytes from the count `at` on, which are one part or two; how many. */
static int ring_parts(const struct ring *ring, unsigned at, unsigned length, struct part *parts)
{
	unsigned start = at % RING_BYTES, first = RING_BYTES - start;

	if (first > length)
		first = length;
	parts[0] = (struct part){ ring->bytes + start, first };
	parts[1] = (struct part){ ring->bytes, length - first };
	return first < length ? 2 : 1;
}

static struct ring ring_of_output(void)
{
	return (struct ring){ output_ring, &channel->output_head, &channel->output_tail, &channel->output_asked };
}

static struct ring ring_of_error(void)
{
	return (struct ring){ error_ring, &channel->error_head, &channel->error_tail, &channel->error_asked };
}

static struct ring ring_of_input(void)
{
	return (struct ring){ input_ring, &channel->input_head, &channel->input_tail, 0 };
}

static void ring_write(const struct ring *ring, unsigned at, const void *bytes, unsigned length)
{
	struct part parts[2];

	ring_parts(ring, at, length, parts);
	memcpy(parts[0].at, bytes, parts[0].length);
	memcpy(parts[1].at, (const char *)bytes + parts[0].length, parts[1].length);
}

static void ring_read(const struct ring *ring, unsigned at, void *bytes, unsigned length)
{
	struct part parts[2];

	ring_parts(ring, at, length, parts);
	memcpy(bytes, parts[0].at, parts[0].length);
	memcpy((char *)bytes + parts[0].length, parts[1].at, parts[1].length);
}

#endif
