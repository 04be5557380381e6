/* A program that a snapshot holds at its start: its process has been made, forked and executed, and stops before its
 * first instruction, where the monitor takes a second snapshot (template.h has the first). Whatever goes on from there pays
 * for none of that again. */
#ifndef VMLET_PROGRAM_H
#define VMLET_PROGRAM_H

#include <asm/fcntl.h>
#include <linux/auxvec.h>
#include <linux/ptrace.h>

#include "syscall.h"
#include "template.h"
#include "text.h"

/* The program's own random bytes, with which a C library protects its stack: AT_RANDOM. */
#define PROGRAM_RANDOM_BYTES 16
/* What wait4 says of a process that has stopped, in the low byte. */
#define STATUS_STOPPED 0x7f

static int has_stopped(int status)
{
	return (status & 0xff) == STATUS_STOPPED;
}

/* Where the kernel has put the random bytes of a program that it has just loaded; 0 if it does not say. */
static unsigned long program_random(long pid)
{
	static struct { unsigned long type, value; } vector[64];
	char path[32], digits[20];
	size_t at = sizeof(digits) - 1;
	const char *end = path + sizeof(path);

	digits[at] = 0;
	for (; pid > 0 && at > 0; pid /= 10)
		digits[--at] = (char)('0' + pid % 10);
	append(append(append(path, end, "/proc/"), end, digits + at), end, "/auxv");
	long length = read_head(path, (char *)vector, sizeof(vector));

	for (long i = 0; (i + 1) * (long)sizeof(vector[0]) <= length && vector[i].type != AT_NULL; i++)
		if (vector[i].type == AT_RANDOM)
			return vector[i].value;
	return 0;
}

/* Other random bytes than every other guest of the snapshot has. */
static void renew_random(long pid, unsigned long address)
{
	long words[PROGRAM_RANDOM_BYTES / sizeof(long)];

	if (call3(getrandom, words, sizeof(words), 0) != sizeof(words))
		return;
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		call4(ptrace, PTRACE_POKEDATA, pid, address + i * sizeof(long), words[i]);
}

/* The program has stopped behind its exec: a snapshot is taken, in which nothing has come for it yet. */
static void hold_program(long pid, volatile unsigned *snapshot)
{
	unsigned long random = program_random(pid);

	if (random) {
		*snapshot = 1;
		struct restore_block *notice = has_notice();

		if (notice) {
			become_another(notice);
			renew_random(pid, random);
		}
	}
}

/* In this guest or in another. */
static void begin_program(long pid)
{
	call4(ptrace, PTRACE_DETACH, pid, 0, 0);
}

#endif
