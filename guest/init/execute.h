/* Runs the command as a shell would: along PATH, a file without "#!" by the shell, and with the true reason
 * if it cannot be run. Statuses as POSIX has them (2.8.2): 127 not found, 126 found but not a program. */
#ifndef VMLET_EXECUTE_H
#define VMLET_EXECUTE_H

#include <asm/errno.h>
#include <asm/fcntl.h>
#include <linux/elf.h>
#include <linux/mman.h>
#include <linux/stat.h>

#include "syscall.h"
#include "text.h"

#define STATUS_NOT_FOUND 127
#define STATUS_CANNOT_RUN 126
#define COMMAND_WORDS 2048
#define PATH_LIMIT 4096
#define AT_FDCWD_ -100L

/* Ended by 0. */
static char **environment;

/* The start of the file, where its kind is written; the length, or -1. */
static long read_head(const char *path, char *head, size_t length)
{
	long fd = call3(open, path, O_RDONLY | O_CLOEXEC, 0);

	if (fd < 0)
		return -1;
	long count = call3(read, fd, head, length);

	call1(close, fd);
	return count;
}

/* The program that loads the ELF file, or runs the script; empty if none is named. */
static void find_loader(char *head, long length, char *name, size_t limit)
{
	name[0] = 0;
	if (length > 2 && head[0] == '#' && head[1] == '!') {
		char *from = head + 2;
		size_t i = 0;

		while (*from == ' ' || *from == '\t')
			from++;
		while (from < head + length && *from > ' ' && i < limit - 1)
			name[i++] = *from++;
		name[i] = 0;
		return;
	}
	Elf64_Ehdr *elf = (Elf64_Ehdr *)head;

	if (length < (long)sizeof(*elf) || head[0] != 0x7f || head[1] != 'E' || head[EI_CLASS] != ELFCLASS64)
		return;
	for (unsigned i = 0; i < elf->e_phnum; i++) {
		unsigned long at = elf->e_phoff + i * sizeof(Elf64_Phdr);

		if (at + sizeof(Elf64_Phdr) > (unsigned long)length)
			return;
		Elf64_Phdr *part = (Elf64_Phdr *)(head + at);

		if (part->p_type == PT_INTERP && part->p_offset + part->p_filesz <= (unsigned long)length) {
			append(name, name + limit, head + part->p_offset);
			return;
		}
	}
}

static int is_folder(const char *path)
{
	struct statx about;

	return call5(statx, AT_FDCWD_, path, 0, STATX_TYPE, &about) == 0 && (about.stx_mode & S_IFMT) == S_IFDIR;
}

static int is_there(const char *path)
{
	struct statx about;

	return call5(statx, AT_FDCWD_, path, 0, STATX_TYPE, &about) == 0;
}

/* Without "#!" and without a NUL, as in a text: then the shell runs it. Comes back if that fails. */
static void run_by_shell(char *path, char **command)
{
	static char *words[COMMAND_WORDS + 2];
	char head[128];
	long length = read_head(path, head, sizeof(head));

	for (long i = 0; i < length; i++)
		if (!head[i])
			return;
	if (length < 0)
		return;
	words[0] = "sh";
	words[1] = path;
	for (size_t i = 1; i <= COMMAND_WORDS && command[i]; i++)
		words[i + 1] = command[i];
	call3(execve, "/bin/sh", words, environment);
}

/* One file. Comes back with the error. */
static long try(char *path, char **command)
{
	long result = call3(execve, path, command, environment);

	if (result == -ENOEXEC)
		run_by_shell(path, command);
	return result;
}

static void complain(const char *name, const char *reason, const char *more, const char *rest)
{
	/* In one piece: the words of others must not come in between. */
	static char line[PATH_LIMIT + 512];
	const char *end = line + sizeof(line);
	char *at = append(line, end, "init: cannot run ");

	at = append(at, end, name);
	at = append(at, end, ": ");
	at = append(at, end, reason);
	at = append(at, end, more);
	at = append(at, end, rest);
	append(at, end, "\n");
	say(line);
}

/* What an error means by itself, or 0. */
static const char *reason_of(long error)
{
	switch (-error) {
	case ENOTDIR:
		return "a part of its path is not a directory";
	case EACCES:
		return "permission denied";
	case ENOEXEC:
		return "not a program for this machine (exec format error)";
	case E2BIG:
		return "the argument list is too long";
	case ENOMEM:
		return "not enough memory";
	case ELOOP:
		return "too many symbolic links";
	default:
		return 0;
	}
}

/* Says why, and gives the status. */
static int explain(const char *name, const char *path, long error)
{
	static char head[4096];
	char loader[256];
	const char *reason = reason_of(error);

	if (path[0] && is_folder(path)) {
		complain(name, "is a directory", "", "");
		return STATUS_CANNOT_RUN;
	}
	if (error == -ENOENT) {
		if (!path[0] || !is_there(path)) {
			complain(name, "not found", "", "");
			return STATUS_NOT_FOUND;
		}
		find_loader(head, read_head(path, head, sizeof(head)), loader, sizeof(loader));
		if (head[0] == '#') {
			complain(name, "its interpreter ", loader, " is not there");
			return STATUS_CANNOT_RUN;
		}
		complain(name, "it is a dynamic program, and its loader ", loader, " is not there");
		return STATUS_NOT_FOUND;
	}
	if (reason) {
		complain(name, reason, "", "");
	} else {
		char number[] = "000";
		unsigned value = (unsigned)-error;

		for (int i = 2; i >= 0; i--, value /= 10)
			number[i] = (char)('0' + value % 10);
		complain(name, "error ", number, "");
	}
	return STATUS_CANNOT_RUN;
}

/* True if the name stands in the text between two of `end`, its first and last byte included. */
static int has_name(const char *text, long length, const char *name, char end)
{
	for (long at = -1; at < length; at++) {
		long i = 0;

		if (at >= 0 && text[at] != end)
			continue;
		while (name[i] && at + 1 + i < length && text[at + 1 + i] == name[i])
			i++;
		if (!name[i] && at + 1 + i < length && text[at + 1 + i] == end)
			return 1;
	}
	return 0;
}

/* Whether busybox has it: init/build has made a list, and another's busybox has the names in its own file. */
static int may_be_applet(const char *name)
{
	static char list[8192];
	long length = read_head("/etc/busybox-applets", list, sizeof(list));

	if (length >= 0)
		return has_name(list, length, name, '\n');
	long fd = call3(open, "/bin/busybox", O_RDONLY | O_CLOEXEC, 0);
	struct statx about;

	if (fd < 0 || call5(statx, AT_FDCWD_, "/bin/busybox", 0, STATX_SIZE, &about) != 0)
		return 0;
	long at = call6(mmap, 0, about.stx_size, PROT_READ, MAP_PRIVATE, fd, 0);

	call1(close, fd);
	return (unsigned long)at < -4096UL && has_name((const char *)at, (long)about.stx_size, name, 0);
}

/* Runs the command, or returns the status that says why not. */
static int execute(char **command)
{
	static const char *const folders[] = { "/usr/local/sbin/", "/usr/local/bin/", "/usr/sbin/", "/usr/bin/", "/sbin/", "/bin/" };
	static char path[PATH_LIMIT], found[PATH_LIMIT];
	char *name = command[0];
	long result = -ENOENT;

	for (const char *c = name; *c; c++)
		if (*c == '/')
			return explain(name, name, try(name, command));
	for (size_t i = 0; *name && i < sizeof(folders) / sizeof(folders[0]); i++) {
		append(append(path, path + sizeof(path), folders[i]), path + sizeof(path), name);
		/* Where the kernel's code is emulated, an exec that finds nothing costs as much as ten of these. */
		if (!is_there(path))
			continue;
		long tried = try(path, command);

		/* What is there and cannot be run says more than what is not there; the first one counts. */
		if (!found[0] && tried != -ENOTDIR && !is_folder(path)) {
			append(found, found + sizeof(found), path);
			result = tried;
		}
	}
	/* Few applets of busybox have a link; it knows the others by the name that it is called by. */
	if (!found[0] && *name && may_be_applet(name)) {
		static char probe[] = "/bin/busybox";

		try(probe, command);
	}
	return explain(name, found, result);
}

#endif
