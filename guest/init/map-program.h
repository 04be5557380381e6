/* The pages of a program that is held behind its exec are mapped before its snapshot is taken. Each first touch of one is a
 * page fault, and where kernel code is emulated, some twenty of those cost more than all else that a short program does. */
#ifndef VMLET_MAP_PROGRAM_H
#define VMLET_MAP_PROGRAM_H

#include <asm/fcntl.h>

#include "syscall.h"
#include "text.h"

#define MAP_PAGE 4096UL
/* What one fault maps of a file that is in memory: the kernel's fault_around_bytes. */
#define FAULT_AROUND (16 * MAP_PAGE)
/* Of a program's files, and of what it may write. More would take longer than it spares. */
#define MAPPED_BYTES (4UL << 20)
#define WRITTEN_BYTES (256UL << 10)
/* Below what the kernel has put on a stack: the first calls' frames. */
#define STACK_BYTES (4 * MAP_PAGE)

struct mapping {
	unsigned long start, end, inode;
	int can_read, can_write;
	const char *name;
};

static unsigned long read_field(char **at, unsigned base)
{
	unsigned long value = 0;

	for (;; (*at)++) {
		unsigned digit = (unsigned)**at - '0';

		if (digit > 9)
			digit = base == 16 && **at >= 'a' && **at <= 'f' ? (unsigned)(**at - 'a') + 10 : base;
		if (digit >= base)
			return value;
		value = value * base + digit;
	}
}

static void skip_field(char **at)
{
	while (**at == ' ')
		(*at)++;
	while (**at && **at != ' ')
		(*at)++;
	while (**at == ' ')
		(*at)++;
}

/* proc(5): START-END PERMISSIONS OFFSET DEVICE INODE NAME. */
static struct mapping read_mapping(char *line)
{
	struct mapping found = { 0 };

	found.start = read_field(&line, 16);
	line++;
	found.end = read_field(&line, 16);
	while (*line == ' ')
		line++;
	found.can_read = line[0] == 'r';
	found.can_write = line[0] && line[1] == 'w';
	skip_field(&line);
	skip_field(&line);
	skip_field(&line);
	found.inode = read_field(&line, 10);
	while (*line == ' ')
		line++;
	found.name = line;
	return found;
}

/* As much as there may be of it, and is; the rest of what there may be. */
static unsigned long limit_to(struct mapping *found, unsigned long left)
{
	if (found->end - found->start > left)
		found->end = found->start + left;
	return left - (found->end - found->start);
}

/* `memory`: the program's. Reading a page of what one fault maps has all of that mapped that is in memory: the last page's has it
 * read, if it is not, and the first one's has it mapped then. Writing a page gives the program its own. */
static void map_pages(long memory, struct mapping found, int writes)
{
	char byte;

	for (unsigned long at = found.start, next; at < found.end; at = next) {
		next = writes ? at + MAP_PAGE : (at | (FAULT_AROUND - 1)) + 1;
		if (next > found.end)
			next = found.end;
		if (call4(pread64, memory, &byte, 1, next - MAP_PAGE) == 1 && writes)
			call4(pwrite64, memory, &byte, 1, next - MAP_PAGE);
		if (!writes)
			call4(pread64, memory, &byte, 1, at);
	}
}

/* `maps`: its list of mappings, opened. `top`: an address close to the end of its stack. */
static void map_program(long maps, long memory, unsigned long top)
{
	static char list[4096];
	long length = call3(read, maps, list, sizeof(list) - 1);
	unsigned long to_read = MAPPED_BYTES, to_write = WRITTEN_BYTES;

	for (char *line = list, *next; length > 0 && *line; line = next) {
		for (next = line; *next && *next != '\n'; next++)
			;
		/* Cut off where the buffer ends. */
		if (!*next)
			break;
		*next++ = 0;
		struct mapping found = read_mapping(line);

		if (is_same(found.name, "[stack]")) {
			found.end = (top | (MAP_PAGE - 1)) + 1;
			if (found.end - found.start > STACK_BYTES)
				found.start = found.end - STACK_BYTES;
			map_pages(memory, found, 1);
		} else if (found.can_write) {
			to_write = limit_to(&found, to_write);
			map_pages(memory, found, 1);
		} else if (found.can_read && found.inode) {
			to_read = limit_to(&found, to_read);
			map_pages(memory, found, 0);
		}
	}
}

#endif
