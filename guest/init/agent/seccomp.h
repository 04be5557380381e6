/* A filter of system calls, as the host has made it, for a container's process. */
#ifndef VMLET_AGENT_SECCOMP_H
#define VMLET_AGENT_SECCOMP_H

#include <asm/errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>

#include "../hex.h"
#include "../syscall.h"
#include "../text.h"

static struct sock_fprog filter;
static unsigned filter_flags;

/* In hexadecimal (digits, A to F), which is read in its place. */
static long take_filter(unsigned flags, char *text)
{
	size_t bytes = length_of(text) / 2;

	if (length_of(text) % 2 || bytes % sizeof(struct sock_filter) || !bytes || bytes / sizeof(struct sock_filter) > BPF_MAXINSNS)
		return -EINVAL;
	for (size_t i = 0; i < bytes; i++) {
		int high = hex_value(text[2 * i]), low = hex_value(text[2 * i + 1]);

		if (high < 0 || low < 0)
			return -EINVAL;
		text[i] = (char)(high << 4 | low);
	}
	filter = (struct sock_fprog){ (unsigned short)(bytes / sizeof(struct sock_filter)), (struct sock_filter *)text };
	filter_flags = flags;
	return 0;
}

/* Who may gain nothing may ask for it at any time; others only as long as they are root. */
static long apply_filter(void)
{
	return filter.len ? call3(seccomp, SECCOMP_SET_MODE_FILTER, filter_flags, &filter) : 0;
}

#endif
