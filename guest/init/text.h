/* Strings and memory without a C library, and the one way to say something. */
#ifndef VMLET_TEXT_H
#define VMLET_TEXT_H

#include "syscall.h"

void *memset(void *at, int value, size_t length)
{
	char *byte = at;

	while (length--)
		*byte++ = (char)value;
	return at;
}

void *memcpy(void *to, const void *from, size_t length)
{
	char *out = to;
	const char *in = from;

	while (length--)
		*out++ = *in++;
	return to;
}

static size_t length_of(const char *text)
{
	size_t length = 0;

	while (text[length])
		length++;
	return length;
}

/* Copies as much as fits, and the NUL; returns where that is. */
static char *append(char *to, const char *end, const char *text)
{
	while (*text && to < end - 1)
		*to++ = *text++;
	*to = 0;
	return to;
}

static void say(const char *text)
{
	call3(write, 2, text, length_of(text));
}

#endif
