/* Who the host is: HELLO, and what comes before it. */
#ifndef VMLET_AGENT_HELLO_H
#define VMLET_AGENT_HELLO_H

#include <linux/random.h>

#include "link.h"
#include "stream.h"

/* Of a guest of a template: the host may speak before it has heard it. */
#define TEMPLATE_NONCE 1

static unsigned nonce;
static int has_host;
/* The head of the frame at hand has been read. */
static int has_header;
static struct frame header;

static void new_nonce(void)
{
	if (call3(getrandom, &nonce, sizeof(nonce), GRND_NONBLOCK) != sizeof(nonce) || nonce <= TEMPLATE_NONCE)
		nonce = (unsigned)__builtin_ia32_rdtsc() | 2;
}

static void say_hello(void)
{
	struct hello hello = { AGENT_MAGIC, AGENT_VERSION, 0, MAX_STREAMS, 0 };

	if (!nonce)
		new_nonce();
	hello.nonce = nonce;
	if (ring_room(&link.output) >= FRAME_HEADER + sizeof(hello))
		send_frame(0, FRAME_HELLO, &hello, sizeof(hello));
}

static void forget_host(void)
{
	has_host = has_header = 0;
	nonce = 0;
	*link.input.tail = *link.input.head;
	link.has_taken = 1;
}

/* True if it begins a conversation. */
static int hear_hello(const struct hello *hello)
{
	if (hello->version == AGENT_VERSION && hello->nonce == nonce)
		return 1;
	/* A host that has come late, or one of another version, learns who is here. What answers an older HELLO is dropped. */
	if (!hello->nonce || hello->version != AGENT_VERSION)
		say_hello();
	return 0;
}

/* All but HELLO is dropped, byte by byte: it may begin in the midst of what was meant for somebody else. */
static void look_for_host(void)
{
	struct { struct frame frame; struct hello hello; } found;

	while (!has_host && ring_used(&link.input) >= sizeof(found)) {
		if (ring_room(&link.output) < ANSWER_ROOM) {
			is_output_blocked = 1;
			return;
		}
		ring_read(&link.input, *link.input.tail, &found, sizeof(found));
		int is_hello = found.frame.length == sizeof(found.hello) && !found.frame.stream && found.frame.type == FRAME_HELLO &&
			       !found.frame.zero[0] && !found.frame.zero[1] && !found.frame.zero[2] &&
			       found.hello.magic == AGENT_MAGIC && !found.hello.zero;

		*link.input.tail += is_hello ? sizeof(found) : 1;
		link.has_taken = 1;
		if (is_hello)
			has_host = hear_hello(&found.hello);
	}
}

#endif
