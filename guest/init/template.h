/* A guest that is to be a template: everything is ready, the command's process has been forked, and waits at a point
 * where the monitor takes a snapshot. What comes after it happens in every guest that begins with the snapshot: it
 * becomes one of its own (random numbers, clock, name), and only then takes the command from the monitor.
 * devices/pseudo/restore-block.ts is the other end. */
#ifndef VMLET_TEMPLATE_H
#define VMLET_TEMPLATE_H

#include <asm/fcntl.h>
#include <asm/ioctls.h>
#include <asm/termbits.h>
#include <linux/ptrace.h>
#include <linux/random.h>
#include <linux/stat.h>

#include "channel.h"
#include "execute.h"
#include "syscall.h"
#include "text.h"
#include "world.h"

#define SEED_BYTES 32
/* The program's own, with which a C library protects its stack: AT_RANDOM. */
#define PROGRAM_RANDOM_BYTES 16
#define BLOCK_TERMINAL 1
/* The command is to stop behind its exec (program.h). */
#define BLOCK_PROGRAM 2
/* What lies in the rings was said to another monitor, also where the guest waits in a template. */
#define BLOCK_OTHER_HOST 4
#define BLOCK_STRINGS 2048
#define CLOCK_REALTIME 0
#define WARM_STARTS 3
/* A program that a guest has for this: it is told the generation, and the command waits for its end. */
#define RESTORE_HOOK "/etc/vmlet/restored"

/* At the beginning of the ring of output, where nothing is before a command has run. */
struct restore_block {
	/* Bytes of the block, this one included. */
	unsigned length;
	/* Strings behind the block, each ended by NUL: host name, folder, then these two lists. */
	unsigned arguments, variables;
	unsigned flags;
	unsigned short rows, columns;
	/* Another one in every guest, never 0. */
	unsigned generation;
	/* Since 1970. */
	long seconds, nanoseconds;
	unsigned char seed[SEED_BYTES], program_random[PROGRAM_RANDOM_BYTES];
	char strings[];
};

struct entropy {
	int bits, bytes;
	unsigned char seed[SEED_BYTES];
};

/* A place before the words is the shell's (execute.h). */
static char *restored_list[BLOCK_STRINGS + 2], *restored_variables[BLOCK_STRINGS + 1];
static char **const restored_words = restored_list + 1;
/* In the command's process: it stops behind its exec (program.h). */
static int holds_program;
/* Of what becoming another needs, what can be had before the snapshot. */
static long urandom = -1;
static enum { HOOK_UNKNOWN, HOOK_NONE, HOOK_THERE } hook;
static char generation_variable[] = "VMLET_GENERATION=00000000";

static void look_for_hook(void)
{
	hook = is_there(RESTORE_HOOK) ? HOOK_THERE : HOOK_NONE;
}

static void open_urandom(void)
{
	if (urandom < 0)
		urandom = call3(open, "/dev/urandom", O_WRONLY | O_CLOEXEC, 0);
}

/* In every guest of the snapshot less is left to be done then. */
static void prepare_to_become_another(void)
{
	open_urandom();
	look_for_hook();
}

/* Until the caller's random numbers are its own: the pool of the template is in every guest of it. */
static long reseed(unsigned char *seed)
{
	struct entropy entropy = { SEED_BYTES * 8, SEED_BYTES, { 0 } };

	for (int i = 0; i < SEED_BYTES; i++) {
		entropy.seed[i] = seed[i];
		seed[i] = 0;
	}
	open_urandom();
	if (urandom < 0)
		return urandom;
	long result = call3(ioctl, urandom, RNDADDENTROPY, &entropy);

	return result == 0 ? call3(ioctl, urandom, RNDRESEEDCRNG, 0) : result;
}

static long set_clock(long seconds, long nanoseconds)
{
	struct timespec64 now = { seconds, nanoseconds };

	return call2(clock_settime, CLOCK_REALTIME, &now);
}

/* Fills a list of pointers from the strings at *at; the strings end before `end`. */
static int take_strings(char **list, unsigned count, char **at, const char *end)
{
	unsigned i = 0;

	if (count > BLOCK_STRINGS)
		return 0;
	for (; i < count; i++) {
		list[i] = *at;
		while (*at < end && **at)
			(*at)++;
		if (*at >= end)
			return 0;
		(*at)++;
	}
	list[i] = 0;
	return 1;
}

/* Puts "NAME=VALUE" in the place of what has the same name, or behind all others. */
static void set_variable(char *variable)
{
	static char *list[BLOCK_STRINGS + 16];
	size_t name = 0, count = 0;
	int is_new = 1;

	while (variable[name] && variable[name] != '=')
		name++;
	for (; environment[count] && count < sizeof(list) / sizeof(list[0]) - 2; count++) {
		size_t i = 0;

		list[count] = environment[count];
		while (i <= name && list[count][i] == variable[i])
			i++;
		if (i > name) {
			list[count] = variable;
			is_new = 0;
		}
	}
	if (is_new)
		list[count++] = variable;
	list[count] = 0;
	environment = list;
}

static void run_hook(unsigned generation)
{
	static char *words[] = { RESTORE_HOOK, 0 };
	char *digits = generation_variable + sizeof(generation_variable) - 9;
	int status;

	if (hook == HOOK_UNKNOWN)
		look_for_hook();
	if (hook == HOOK_NONE)
		return;
	for (int i = 7; i >= 0; i--, generation >>= 4)
		digits[i] = "0123456789abcdef"[generation & 15];
	long child = call0(fork);

	if (child == 0) {
		set_variable(generation_variable);
		call3(execve, words[0], words, environment);
		call1(exit_group, STATUS_CANNOT_RUN);
	}
	while (child > 0 && call4(wait4, child, &status, 0, 0) == -EINTR)
		;
}

/* The terminal as somebody who sits there expects it, and this process at it. */
static void sit_at_terminal(const char *device, const struct restore_block *block)
{
	struct { unsigned short rows, columns, x, y; } size = { block->rows, block->columns, 0, 0 };
	struct termios modes;
	long fd = call3(open, device, O_RDWR, 0);

	if (fd < 0)
		fd = call3(open, "/dev/console", O_RDWR, 0);
	if (fd < 0)
		return;
	if (call3(ioctl, fd, TCGETS, &modes) == 0) {
		modes.c_iflag = ICRNL | IXON;
		modes.c_oflag = OPOST | ONLCR;
		modes.c_lflag = ISIG | ICANON | ECHO | ECHOE | ECHOK | ECHOCTL | ECHOKE | IEXTEN;
		call3(ioctl, fd, TCSETS, &modes);
	}
	call3(ioctl, fd, TIOCSCTTY, 0);
	if (block->rows)
		call3(ioctl, fd, TIOCSWINSZ, &size);
	for (int i = 0; i < 3; i++)
		call2(dup2, fd, i);
	if (fd > 2)
		call1(close, fd);
}

static int terminal_is_taken(void)
{
	const struct restore_block *block = (const struct restore_block *)output_ring;

	/* Nothing of the command's has gone through the ring: the block is as the monitor has written it. */
	return channel->output_head == 0 && block->generation && (block->flags & BLOCK_TERMINAL);
}

/* Starts a shell a few times: what every program's start and end needs of the kernel is at hand then, and the pages
 * of the shell itself are known to be in use, so that no guest has to find that out again. */
static void warm_up(void)
{
	static char *words[] = { "/bin/sh", "-c", ":", 0 };
	int status;

	for (int i = 0; i < WARM_STARTS; i++) {
		long shell = call0(fork);

		if (shell == 0) {
			call3(execve, words[0], words, environment);
			call1(exit_group, 0);
		}
		while (shell > 0 && call4(wait4, shell, &status, 0, 0) == -EINTR)
			;
	}
}

/* The agent is to leave its host, whatever it was doing when it heard of another. */
static int has_other_host;

/* This guest, or another of the same snapshot, goes on: it has to become one of its own. */
static void become_another(struct restore_block *told)
{
	has_other_host |= told->flags & BLOCK_OTHER_HOST;
	reseed(told->seed);
	set_clock(told->seconds, told->nanoseconds);
	if (told->strings[0])
		rename_guest(told->strings);
	run_hook(told->generation);
}

/* What init has been told last; and whether there is something newer. */
static unsigned known_generation;

static struct restore_block *has_notice(void)
{
	struct restore_block *notice = (struct restore_block *)((char *)channel + CHANNEL_NOTICE);

	if (!notice->length || notice->generation == known_generation)
		return 0;
	known_generation = notice->generation;
	return notice;
}

/* Waits where the snapshot is taken. The command of the guest that goes on from there, or 0 if it was given none. */
static char **wait_in_template(volatile unsigned *snapshot, const char *terminal_device)
{
	static const struct timespec64 moment = { 0, 100000000 };
	struct restore_block *block = (struct restore_block *)output_ring;
	char *names[3], *at = block->strings;

	/* Its memory is there, so that no page of it need be looked for then; and init has gone to sleep. */
	for (unsigned i = 0; i < BLOCK_STRINGS; i += 512)
		*(char *volatile *)&restored_words[i] = 0, *(char *volatile *)&restored_variables[i] = 0;
	for (unsigned i = 0; i < CHANNEL_BLOCK_BYTES; i += 4096)
		(void)*(volatile char *)(output_ring + i);
	prepare_to_become_another();
	call2(nanosleep, &moment, 0);
	*snapshot = 1;
	const char *end = output_ring + block->length;

	if (block->length < sizeof(*block) || block->length > CHANNEL_BLOCK_BYTES)
		return 0;
	if (!take_strings(names, 2, &at, end) || !take_strings(restored_words, block->arguments, &at, end) ||
	    !take_strings(restored_variables, block->variables, &at, end))
		return 0;
	become_another(block);
	if (block->flags & BLOCK_TERMINAL)
		sit_at_terminal(terminal_device, block);
	for (unsigned i = 0; restored_variables[i]; i++)
		set_variable(restored_variables[i]);
	if (names[1][0])
		call1(chdir, names[1]);
	holds_program = (block->flags & BLOCK_PROGRAM) && call4(ptrace, PTRACE_TRACEME, 0, 0, 0) == 0;
	block->length = 0;
	return restored_words;
}

#endif
