/* The network's setup as messages of rtnetlink(7), which the host has made: interfaces, addresses, routes of any number. */
#ifndef VMLET_AGENT_NETLINK_H
#define VMLET_AGENT_NETLINK_H

#include <asm/errno.h>
#include <linux/netlink.h>

#include "../syscall.h"
#include "stream.h"

#define AF_NETLINK 16
#define SOCK_RAW 3
#define SOCK_NONBLOCK 04000
#define SOCK_CLOEXEC 02000000

struct netlink_answer {
	struct nlmsghdr header;
	int error;
	/* The message that it answers, and what the kernel says of it. */
	char rest[1024];
};

/* 0, or why the kernel refuses it. It answers within the call that hands it the message. */
static long give_message(long socket, const struct nlmsghdr *message)
{
	static struct netlink_answer answer;
	long count = call3(write, socket, message, message->nlmsg_len);

	while (count > 0) {
		count = call3(read, socket, &answer, sizeof(answer));
		if (count >= (long)(sizeof(answer.header) + sizeof(answer.error)) && answer.header.nlmsg_type == NLMSG_ERROR &&
		    answer.header.nlmsg_seq == message->nlmsg_seq)
			return answer.error;
	}
	return count < 0 ? count : -EIO;
}

/* The messages lie one behind the other, each at a multiple of 4. False if they do not. */
static int are_messages(const char *at, unsigned length)
{
	while (length) {
		const struct nlmsghdr *message = (const struct nlmsghdr *)at;

		if (length < sizeof(*message) || message->nlmsg_len < sizeof(*message) || message->nlmsg_len > length ||
		    NLMSG_ALIGN(message->nlmsg_len) > length || !(message->nlmsg_flags & NLM_F_ACK))
			return 0;
		length -= NLMSG_ALIGN(message->nlmsg_len);
		at += NLMSG_ALIGN(message->nlmsg_len);
	}
	return 1;
}

/* The first one that is refused ends it; its number is the failure's text. */
static int handle_netlink(struct stream *stream, const char *at, unsigned length)
{
	static char text[] = "message 0000";
	const char *end = at + length;
	long socket, error = 0;

	if (!are_messages(at, length))
		return 0;
	socket = call3(socket, AF_NETLINK, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, NETLINK_ROUTE);
	if (socket < 0) {
		fail_with(stream, socket, "the kernel has no netlink");
		return 1;
	}
	for (unsigned number = 1; at < end && error == 0; number++) {
		const struct nlmsghdr *message = (const struct nlmsghdr *)at;

		error = give_message(socket, message);
		at += NLMSG_ALIGN(message->nlmsg_len);
		for (unsigned digit = 0, rest = number; digit < 4; digit++, rest /= 10)
			text[sizeof(text) - 2 - digit] = (char)('0' + rest % 10);
	}
	call1(close, socket);
	if (error)
		fail_with(stream, error, text);
	else
		finish_with(stream, 0, 0);
	return 1;
}

#endif
