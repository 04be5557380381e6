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
