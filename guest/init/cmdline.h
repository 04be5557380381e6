/* What the kernel's command line says to init; init.c has the list. */
#ifndef VMLET_CMDLINE_H
#define VMLET_CMDLINE_H

#include <asm/fcntl.h>
#include <linux/mount.h>

#include "execute.h"
#include "root.h"
#include "syscall.h"
#include "world.h"

struct window_size {
	unsigned short rows, columns, x_pixels, y_pixels;
};

static char cmdline[4096];
static char arguments[4096];
/* A place before the words is the shell's (execute.h). */
static char *argument_list[COMMAND_WORDS + 1];
static char **const argv = argument_list + 1;
static char term[64] = "TERM=vt100";
static char *first_environment[] = { "PATH=" DEFAULT_PATH, "HOME=/root", term, host_name, 0 };
static struct window_size window;
static int raw_tty, is_template, is_agent, is_image_readonly;
/* Where the agent is spoken to; empty: over the command channel. */
static char agent_link[32];
static char root_device[32], image_device[32];
static const char *network;
static char terminal_device[32] = "/dev/ttyS0";

static int base64_value(char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	if (c == '-')
		return 62;
	return c == '_' ? 63 : -1;
}

/* Fills argv from base64url text that ends at a blank or NUL. */
static void decode_arguments(const char *text)
{
	unsigned bits = 0, count = 0;
	size_t length = 0, start = 0, words = 0;

	for (int value; (value = base64_value(*text)) >= 0; text++) {
		bits = (bits << 6) | (unsigned)value;
		count += 6;
		if (count >= 8 && length < sizeof(arguments) - 1) {
			count -= 8;
			arguments[length++] = (char)(bits >> count);
		}
	}
	arguments[length] = 0;
	for (size_t i = 0; i <= length && words < COMMAND_WORDS - 1; i++) {
		if (arguments[i] == 0) {
			argv[words++] = arguments + start;
			start = i + 1;
		}
	}
	argv[words] = 0;
}

static unsigned number(const char **text)
{
	unsigned value = 0;

	while (**text >= '0' && **text <= '9')
		value = value * 10 + (unsigned)(*(*text)++ - '0');
	return value;
}

/* The value if `word` starts with `key`. */
static const char *value_of(const char *word, const char *key)
{
	while (*key)
		if (*word++ != *key++)
			return 0;
	return word;
}

static void copy_word(char *to, size_t size, const char *from)
{
	size_t i = 0;

	for (; i < size - 1 && *from > ' '; i++, from++)
		to[i] = *from;
	to[i] = 0;
}

static void read_cmdline(void)
{
	long fd = call3(open, "/proc/cmdline", O_RDONLY | O_CLOEXEC, 0);
	long length = call3(read, fd, cmdline, sizeof(cmdline) - 1);

	call1(close, fd);
	if (length < 0)
		return;
	for (char *word = cmdline; *word;) {
		const char *value;

		/* What follows is another's. */
		if (word[0] == '-' && word[1] == '-' && word[2] <= ' ')
			return;
		if ((value = value_of(word, "vmlet.exec="))) {
			decode_arguments(value);
		} else if ((value = value_of(word, "vmlet.tty=raw"))) {
			raw_tty = 1;
		} else if ((value = value_of(word, "vmlet.template")) && *value <= ' ') {
			is_template = raw_tty = 1;
		} else if ((value = value_of(word, "console="))) {
			/* What follows a comma is the line's speed. */
			size_t i = 5;

			for (; i < sizeof(terminal_device) - 1 && *value > ' ' && *value != ','; i++, value++)
				terminal_device[i] = *value;
			terminal_device[i] = 0;
		} else if ((value = value_of(word, "vmlet.root="))) {
			copy_word(root_device, sizeof(root_device), value);
		} else if ((value = value_of(word, "vmlet.image="))) {
			copy_word(image_device, sizeof(image_device), value);
		} else if ((value = value_of(word, "vmlet.image.ro")) && *value <= ' ') {
			is_image_readonly = 1;
		} else if ((value = value_of(word, "vmlet.agent")) && (*value <= ' ' || *value == '=')) {
			is_agent = 1;
			copy_word(agent_link, sizeof(agent_link), *value == '=' ? value + 1 : value);
		} else if ((value = value_of(word, "rootfstype="))) {
			copy_word(root_types, sizeof(root_types), value);
		} else if ((value = value_of(word, "rootflags="))) {
			copy_word(root_data, sizeof(root_data), value);
		} else if (word[0] == 'r' && (word[1] == 'o' || word[1] == 'w') && word[2] <= ' ') {
			root_flags = word[1] == 'o' ? MS_RDONLY : 0;
		} else if ((value = value_of(word, "ip="))) {
			network = value;
		} else if ((value = value_of(word, "vmlet.term="))) {
			for (size_t i = 5; i < sizeof(term) - 1 && *value > ' '; i++, value++)
				term[i] = *value, term[i + 1] = 0;
		} else if ((value = value_of(word, "vmlet.size="))) {
			window.rows = (unsigned short)number(&value);
			if (*value == 'x')
				value++, window.columns = (unsigned short)number(&value);
		}
		while (*word > ' ')
			word++;
		while (*word && *word <= ' ')
			word++;
	}
}

#endif
