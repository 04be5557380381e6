/* What was made so far, so that a start that fails leaves nothing: the last thing goes first. */
#ifndef VMLET_LAUNCHER_UNDO_H
#define VMLET_LAUNCHER_UNDO_H

#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <unistd.h>

/* Firecracker's jailer has this one for all. */
#define EXIT_FAILED 1
#define MAX_UNDO 128

struct undo {
	/* A mount where this is set; otherwise an entry of the folder. */
	const char *mount;
	int folder;
	const char *name;
	int flags;
};

/* Who waits for this process to become the program hears by a byte that it has not; -1: nobody. */
static int failure_fd = -1;
/* Whose lines they are. */
static const char *say_as = "vmlet-jailer";
static struct undo undo_list[MAX_UNDO];
static int undo_count;

static void undo_push(struct undo step)
{
	if (undo_count < MAX_UNDO)
		undo_list[undo_count++] = step;
}

static void undo_all(void)
{
	while (undo_count > 0) {
		struct undo *step = &undo_list[--undo_count];

		if (step->mount)
			umount2(step->mount, MNT_DETACH);
		else
			unlinkat(step->folder, step->name, step->flags);
	}
}

static void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
static _Noreturn void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

static void say_list(const char *format, va_list values)
{
	char line[8192];
	int length = snprintf(line, sizeof(line) - 1, "%s: ", say_as);

	length += vsnprintf(line + length, sizeof(line) - 1 - (size_t)length, format, values);
	if (length > (int)sizeof(line) - 2)
		length = (int)sizeof(line) - 2;
	line[length++] = '\n';
	if (write(STDERR_FILENO, line, (size_t)length) < 0)
		return;
}

static void say(const char *format, ...)
{
	va_list values;

	va_start(values, format);
	say_list(format, values);
	va_end(values);
}

static _Noreturn void fail(const char *format, ...)
{
	va_list values;

	va_start(values, format);
	say_list(format, values);
	va_end(values);
	undo_all();
	if (failure_fd >= 0 && write(failure_fd, "", 1) < 0)
		_exit(EXIT_FAILED);
	_exit(EXIT_FAILED);
}

/* Memory that is kept until the end. */
static char *text_of(const char *format, ...) __attribute__((format(printf, 1, 2)));
static char *text_of(const char *format, ...)
{
	char *text = NULL;
	va_list values;

	va_start(values, format);
	int length = vasprintf(&text, format, values);
	va_end(values);
	if (length < 0)
		fail("no memory");
	return text;
}

#endif
