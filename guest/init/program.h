/* A program that a snapshot holds at its start: its process has been made, forked and executed, and stops before its
 * first instruction, where the monitor takes a second snapshot (template.h has the first). Whatever goes on from there pays
 * for none of that again. */
#ifndef VMLET_PROGRAM_H
#define VMLET_PROGRAM_H

#include <asm/fcntl.h>
#include <linux/auxvec.h>
#include <linux/ptrace.h>
#include <linux/sched.h>

#include "map-program.h"
#include "syscall.h"
#include "template.h"
#include "text.h"

/* What wait4 says of a process that has stopped, in the low byte. */
#define STATUS_STOPPED 0x7f
#define AT_EMPTY_PATH_ 0x1000

static int has_stopped(int status)
{
	return (status & 0xff) == STATUS_STOPPED;
}

static long open_of_process(long pid, const char *name, int flags)
{
	char path[40], digits[20];
	size_t at = sizeof(digits) - 1;
	const char *end = path + sizeof(path);

	digits[at] = 0;
	for (; pid > 0 && at > 0; pid /= 10)
		digits[--at] = (char)('0' + pid % 10);
	append(append(append(path, end, "/proc/"), end, digits + at), end, name);
	return call3(open, path, flags | O_CLOEXEC, 0);
}

/* Where the kernel has put the random bytes of a program that it has just loaded; 0 if it does not say. */
static unsigned long program_random(long pid)
{
	static struct { unsigned long type, value; } vector[64];
	long fd = open_of_process(pid, "/auxv", O_RDONLY), length;

	if (fd < 0)
		return 0;
	length = call3(read, fd, vector, sizeof(vector));
	call1(close, fd);
	for (long i = 0; (i + 1) * (long)sizeof(vector[0]) <= length && vector[i].type != AT_NULL; i++)
		if (vector[i].type == AT_RANDOM)
			return vector[i].value;
	return 0;
}

/* Of a file that a held program is made of. */
#define PROGRAM_BYTES (16UL << 20)

/* Reads it, so that it is in memory: a page that has to come from a disk costs more than most programs do. */
static void warm_file(long fd)
{
	static char bytes[65536];

	for (unsigned long at = 0; fd >= 0 && at < PROGRAM_BYTES;) {
		long count = call3(read, fd, bytes, sizeof(bytes));

		if (count <= 0)
			break;
		at += (unsigned long)count;
	}
	call1(close, fd);
}

/* The program and what loads it. */
static void warm_program(long pid)
{
	char head[4096], loader[256];
	long fd = open_of_process(pid, "/exe", O_RDONLY);
	long length = fd < 0 ? -1 : call4(pread64, fd, head, sizeof(head), 0);

	warm_file(fd);
	if (length <= 0)
		return;
	find_loader(head, length, loader, sizeof(loader));
	if (loader[0] == '/')
		warm_file(call3(open, loader, O_RDONLY | O_CLOEXEC, 0));
}

/* The tasks of the program that is held, opened while nobody waits for it. */
static struct {
	long pid, fd;
} held_tasks;

static long open_tasks(long pid)
{
	return open_of_process(pid, "/task", O_RDONLY | O_DIRECTORY);
}

/* What is to be changed of a container that goes on in another guest: its name, where its program has it. */
struct held_name {
	/* The program's memory and its namespace, and that of this process, opened while nobody waits. */
	long memory, names, own;
	unsigned long at;
	size_t length;
};

/* Of the program's words, which lie above its random bytes; the host has seen to it that no argument looks like that. */
#define WORDS_BYTES 65536

static struct held_name find_name(long pid, long memory, unsigned long random)
{
	static char words[WORDS_BYTES], variable[] = "HOSTNAME=";
	struct held_name found = { memory, open_of_process(pid, "/ns/uts", O_RDONLY),
				   call3(open, "/proc/self/ns/uts", O_RDONLY | O_CLOEXEC, 0), 0, 0 };
	long length = call4(pread64, memory, words, sizeof(words), random);
	const long name = sizeof(variable) - 1;

	for (long at = 0; at + 1 + name < length && !found.at; at++) {
		long i = 0;

		while (!words[at] && i < name && words[at + 1 + i] == variable[i])
			i++;
		if (i < name)
			continue;
		found.at = random + (unsigned long)(at + 1 + name);
		while (at + 1 + name + (long)found.length < length && words[at + 1 + name + (long)found.length])
			found.length++;
	}
	return found;
}

/* The guest has the name already; the container may have names of its own. */
static void rename_held(const struct held_name *held, const char *name)
{
	if (held->names >= 0 && held->own >= 0 && call2(setns, held->names, CLONE_NEWUTS) == 0) {
		call2(sethostname, name, length_of(name));
		call2(setns, held->own, CLONE_NEWUTS);
	}
	if (held->at && length_of(name) == held->length)
		call4(pwrite64, held->memory, name, held->length, held->at);
}

/* A shared folder may say for a tenth of a second what it has said before (vmm/virtio/backends/virtiofsd-command.ts). */
static void let_answers_expire(void)
{
	static const struct timespec64 longer = { 0, 200000000 };

	call2(nanosleep, &longer, 0);
}

/* The program has stopped behind its exec: a snapshot is taken, in which nothing has come for it yet. In another guest that
 * goes on from it, it gets other random bytes; a container's, its name. */
static void hold_program(long pid, volatile unsigned *snapshot, int is_container)
{
	struct held_name name = { -1, -1, -1, 0, 0 };

	if (root_kind != ROOT_INITRAMFS && !is_container)
		warm_program(pid);
	unsigned long random = program_random(pid);
	long memory = open_of_process(pid, "/mem", O_RDWR);

	if (random && memory >= 0) {
		map_program(open_of_process(pid, "/maps", O_RDONLY), memory, random);
		prepare_to_become_another();
		held_tasks.pid = pid;
		held_tasks.fd = open_tasks(pid);
		if (is_container) {
			name = find_name(pid, memory, random);
			let_answers_expire();
		}
		channel->looks = 1;
		*snapshot = 1;
		channel->looks = 0;
		struct restore_block *notice = has_notice();

		if (notice) {
			become_another(notice);
			call4(pwrite64, memory, notice->program_random, PROGRAM_RANDOM_BYTES, random);
			for (int i = 0; i < PROGRAM_RANDOM_BYTES; i++)
				notice->program_random[i] = 0;
			if (is_container && notice->strings[0])
				rename_held(&name, notice->strings);
		}
		/* Later there may be one. */
		hook = HOOK_UNKNOWN;
	}
	/* `memory` stays open: this happens once, and closing it would take as long as all the rest of the program's start. */
}

/* In this guest or in another. */
static void begin_program(long pid)
{
	call4(ptrace, PTRACE_DETACH, pid, 0, 0);
}

#endif
