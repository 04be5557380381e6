/* Runs the command as a shell would: along PATH, a file without "#!" by the shell, and with the true reason
 * if it cannot be run. Statuses as POSIX has them (2.8.2): 127 not found, 126 found but not a program. */
#ifndef VMLET_EXECUTE_H
#define VMLET_EXECUTE_H

#include <asm/errno.h>
#include <asm/fcntl.h>
#include <linux/elf.h>
#include <linux/mman.h>
#include <linux/stat.h>

#include "root-kind.h"
#include "syscall.h"
#include "text.h"

#define STATUS_NOT_FOUND 127
#define STATUS_CANNOT_RUN 126
#define COMMAND_WORDS 2048
#define PATH_LIMIT 4096
#define AT_FDCWD_ -100L
#define REFUSAL_TEXT 1024
#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

/* Why a command cannot be run. */
struct refusal {
	/* As a shell gives it, and as Linux does: ENOENT goes with STATUS_NOT_FOUND alone. */
	int status, error;
	char text[REFUSAL_TEXT];
};

/* Ended by 0. */
static char **environment;
static struct refusal own_refusal;
/* The agent's reader of it is another process. */
static struct refusal *refusal = &own_refusal;

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
	long result = call5(statx, AT_FDCWD_, path, 0, STATX_TYPE, &about);

	/* A filter of system calls may forbid to look: the exec tells then. */
	return result != -ENOENT && result != -ENOTDIR;
}

/* Without "#!" and without a NUL, as in a text: then the shell runs it. Comes back if that fails. Every list of a
 * command's words has a place before the first one. */
static void run_by_shell(char *path, char **command)
{
	char head[128];
	char *name = command[0];
	long length = read_head(path, head, sizeof(head));

	for (long i = 0; i < length; i++)
		if (!head[i])
			return;
	if (length < 0)
		return;
	command[-1] = "sh";
	command[0] = path;
	call3(execve, "/bin/sh", command - 1, environment);
	command[0] = name;
}

/* One file. Comes back with the error. */
static long try(char *path, char **command)
{
	long result = call3(execve, path, command, environment);

	if (result == -ENOEXEC)
		run_by_shell(path, command);
	return result;
}

static int refuse(int status, long error, const char *name, const char *reason, const char *more, const char *rest)
{
	const char *end = refusal->text + sizeof(refusal->text);
	char *at = append(refusal->text, end, "cannot run ");

	/* Of a long name there is enough to know it by; the reason fits behind it. */
	at = append(at, at + REFUSAL_TEXT / 2, name);
	at = append(at, end, ": ");
	at = append(at, end, reason);
	at = append(at, end, more);
	append(at, end, rest);
	refusal->status = status;
	refusal->error = (int)-error;
	return status;
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

/* Gives the status, and leaves the reason in `refusal`. */
static int explain(const char *name, const char *path, long error)
{
	static char head[4096];
	char loader[256], number[24];
	const char *reason = reason_of(error);

	if (path[0] && is_folder(path))
		return refuse(STATUS_CANNOT_RUN, -EACCES, name, "is a directory", "", "");
	if (error == -ENOENT) {
		if (!path[0] || !is_there(path))
			return refuse(STATUS_NOT_FOUND, error, name, "not found", "", "");
		find_loader(head, read_head(path, head, sizeof(head)), loader, sizeof(loader));
		if (head[0] == '#')
			return refuse(STATUS_CANNOT_RUN, -ENOEXEC, name, "its interpreter ", loader, " is not there");
		return refuse(STATUS_NOT_FOUND, error, name, "it is a dynamic program, and its loader ", loader,
			      " is not there");
	}
	if (reason)
		return refuse(STATUS_CANNOT_RUN, error, name, reason, "", "");
	append_number(number, number + sizeof(number), (unsigned long)-error);
	return refuse(STATUS_CANNOT_RUN, error, name, "error ", number, "");
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

/* Runs the command, along `folders` (as PATH has them) if its name has no slash. Comes back with the status that says
 * why not; `refusal` has the reason. */
static int attempt(char **command, const char *folders)
{
	static char path[PATH_LIMIT], found[PATH_LIMIT];
	char *name = command[0];
	long result = -ENOENT;

	for (const char *c = name; *c; c++)
		if (*c == '/')
			return explain(name, name, try(name, command));
	for (const char *next = folders; *name && next;) {
		char *at = path;

		while (*next && *next != ':' && at < path + sizeof(path) - 2)
			*at++ = *next++;
		next = *next == ':' ? next + 1 : 0;
		/* An empty one is the working directory. */
		if (at == path)
			*at++ = '.';
		*at++ = '/';
		append(at, path + sizeof(path), name);
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
	/* Few applets of our own busybox have a link; it knows the others by the name that it is called by. An image means what
	 * it has. */
	if (root_kind != ROOT_IMAGE && !found[0] && *name && may_be_applet(name)) {
		static char probe[] = "/bin/busybox";

		try(probe, command);
	}
	return explain(name, found, result);
}

/* Runs the command, or says why not and returns the status. */
static int execute(char **command)
{
	/* In one piece: the words of others must not come in between. */
	static char line[REFUSAL_TEXT + 16];
	int status = attempt(command, DEFAULT_PATH);

	append(append(append(line, line + sizeof(line), "init: "), line + sizeof(line), refusal->text), line + sizeof(line), "\n");
	say(line);
	return status;
}

#endif
