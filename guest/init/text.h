/* Strings and memory without a C library, and the one way to say something. */
#ifndef VMLET_TEXT_H
#define VMLET_TEXT_H

#include "syscall.h"

/* The processor's own string instructions: no loop of ours is faster, and none is smaller. */
void *memset(void *at, int value, size_t length)
{
	void *to = at;

	__asm__ volatile("rep stosb" : "+D"(to), "+c"(length) : "a"(value) : "memory");
	return at;
}

void *memcpy(void *to, const void *from, size_t length)
{
	void *out = to;

	__asm__ volatile("rep movsb" : "+D"(out), "+S"(from), "+c"(length) : : "memory");
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

static inline int is_same(const char *one, const char *other)
{
	while (*one && *one == *other)
		one++, other++;
	return *one == *other;
}

/* In decimal, behind what is there already. */
static inline char *append_number(char *to, const char *end, unsigned long value)
{
	char digits[21];
	size_t at = sizeof(digits) - 1;

	digits[at] = 0;
	do
		digits[--at] = (char)('0' + value % 10);
	while ((value /= 10) > 0);
	return append(to, end, digits + at);
}

/* True if all of the text is a number that fits. */
static inline int read_number(const char *text, unsigned *number)
{
	unsigned long value = 0;

	if (!*text)
		return 0;
	for (; *text; text++) {
		if (*text < '0' || *text > '9')
			return 0;
		value = value * 10 + (unsigned)(*text - '0');
		if (value > 0xffffffffUL)
			return 0;
	}
	*number = (unsigned)value;
	return 1;
}

static void say(const char *text)
{
	call3(write, 2, text, length_of(text));
}

#endif
