/* PID 1 of a micro-VM: marks the milestone, mounts what programs expect, runs the command
 * that the kernel command line names, reaps, and powers off with the command's exit status.
 *
 *   console=NAME,...      the terminal, the last one if there are several; without it: ttyS0
 *   vmlet.root=DEVICE     disk to change into before anything runs
 *   ro, rw, rootfstype=, rootflags=   how it is mounted (root.h)
 *   vmlet.exec=BASE64URL  argv, its strings separated by NUL; without it: /bin/sh
 *   vmlet.tty=raw         the host is not a terminal: a channel is used if there is one (channel.h), else the
 *                         terminal has no echo and no newline translation
 *   vmlet.template        wait for the command where a snapshot is taken (template.h)
 *   vmlet.term=NAME       TERM
 *   vmlet.size=ROWSxCOLS  window size
 *   ip=CLIENT:...         the network (network.h)
 *
 * The monitor listens at one MMIO page (devices/pseudo/boot-timer.ts), reached through /dev/mem.
 */
#include <asm/fcntl.h>
#include <asm/ioctls.h>
#include <asm/signal.h>
#include <linux/mman.h>
#include <asm/termbits.h>
#include <linux/mount.h>
#include <linux/reboot.h>
#include <linux/stat.h>

#include "channel.h"
#include "execute.h"
#include "network.h"
#include "syscall.h"
#include "text.h"
#include "world.h"
#include "template.h"
#include "program.h"

#define BOOT_TIMER_GPA 0xc0000000UL
#define BOOT_TIMER_MAGIC 0x544c4d56U
#define MILESTONE_INIT 123
#define MILESTONE_COMMAND_START 124
#define MILESTONE_COMMAND_END 125

#define DEV_MEM ((1 << 8) | 1) /* makedev(1, 1) */
#define SIGNAL_STATUS 128
#define WNOHANG 1
#define PRIO_PROCESS 0
/* Of init while it moves bytes: a tenth of a processor, if programs want all of it. */
#define NICE 10

/* Offsets are the device's registers. */
struct boot_timer {
	volatile unsigned char milestone;
	volatile unsigned char reserved[3];
	volatile unsigned int exit_status;
	volatile unsigned int power_off;
	volatile unsigned int magic;
	/* Read: where the command's channel is. Written: something has changed there. */
	volatile unsigned int channel;
	/* Written: a snapshot may be taken here. */
	volatile unsigned int snapshot;
};

struct window_size {
	unsigned short rows, columns, x_pixels, y_pixels;
};

static struct boot_timer *timer;

static char cmdline[4096];
static char arguments[4096];
static char *argv[COMMAND_WORDS];
static char term[64] = "TERM=vt100";
static char *first_environment[] = {
	"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
	"HOME=/root", term, host_name, 0,
};
static struct window_size window;
static int raw_tty, is_template;
static char root_device[32];
static const char *network;
static char terminal_device[32] = "/dev/ttyS0";
static long terminal = -1;

/* What a signal handler returns to: the kernel wants it from user space on x86-64. */
__asm__("restore:\n\tmov $15, %eax\n\tsyscall\n");
extern void restore(void);

static void open_timer(void)
{
	call3(mknod, "/dev/mem", S_IFCHR | 0600, DEV_MEM);
	long fd = call3(open, "/dev/mem", O_RDWR | O_SYNC | O_CLOEXEC, 0);

	if (fd < 0)
		return;
	long at = call6(mmap, 0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, BOOT_TIMER_GPA);

	call1(close, fd);
	/* The last page of addresses are error numbers. */
	if ((unsigned long)at > -4096UL)
		return;
	timer = (struct boot_timer *)at;
}

static void milestone(int code)
{
	if (timer)
		timer->milestone = (unsigned char)code;
}

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
	for (size_t i = 0; i <= length && words < sizeof(argv) / sizeof(argv[0]) - 1; i++) {
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

/* Opens it only to be woken by it: no byte of it is anybody's. */
static void open_wake_up(void)
{
	struct termios modes;

	terminal = call3(open, terminal_device, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC, 0);
	if (terminal < 0)
		terminal = call3(open, "/dev/console", O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC, 0);
	if (terminal < 0 || call3(ioctl, terminal, TCGETS, &modes) != 0)
		return;
	modes.c_iflag = 0;
	modes.c_lflag = 0;
	modes.c_oflag &= ~(unsigned)OPOST;
	modes.c_cc[VMIN] = 1;
	modes.c_cc[VTIME] = 0;
	call3(ioctl, terminal, TCSETS, &modes);
	wake_up = terminal;
}

/*
 * The console becomes the controlling terminal of init's own session, and stays it when the
 * command ends: the end of a session's leader hangs its terminal up, and what the port has not
 * sent by then is lost.
 */
static void open_terminal(void)
{
	call0(setsid);
	terminal = call3(open, terminal_device, O_RDWR, 0);
	if (terminal < 0)
		terminal = call3(open, "/dev/console", O_RDWR, 0);
	if (terminal < 0)
		return;
	call3(ioctl, terminal, TIOCSCTTY, 0);
	if (window.rows)
		call3(ioctl, terminal, TIOCSWINSZ, &window);
	if (raw_tty) {
		struct termios modes;

		/* ICANON stays: it is what makes the host's end of input an end of file here. */
		if (call3(ioctl, terminal, TCGETS, &modes) == 0) {
			modes.c_oflag &= ~(unsigned)OPOST;
			modes.c_iflag &= ~(unsigned)(ICRNL | IXON);
			modes.c_lflag &= ~(unsigned)(ECHO | ECHOE | ECHOK | ISIG | IEXTEN);
			call3(ioctl, terminal, TCSETS, &modes);
		}
	}
}

static void handle(int signal, void (*handler)(int))
{
	struct sigaction action = {
		.sa_handler = handler,
		.sa_flags = SA_RESTORER,
		.sa_restorer = restore,
	};

	call4(rt_sigaction, signal, &action, 0, 8);
}

/* The command in the foreground, in a group of its own: `kill 0` must not reach init. */
static void take_terminal(void)
{
	int group = (int)call0(getpid);

	call2(setpgid, 0, 0);
	/* A process in the background that asks is stopped by SIGTTOU. */
	handle(SIGTTOU, SIG_IGN);
	call3(ioctl, terminal, TIOCSPGRP, &group);
	handle(SIGTTOU, SIG_DFL);
	for (int fd = 0; fd < 3; fd++)
		call2(dup2, terminal, fd);
	if (terminal > 2)
		call1(close, terminal);
}

/* Becomes the command; without one there is nothing to do. */
static void run_command(char **command)
{
	int status = 0;

	/* The host holds its input back until now: the terminal is set up, and nothing can flush it. */
	if (!holds_program)
		milestone(MILESTONE_COMMAND_START);
	if (command && command[0])
		status = execute(command);
	if (holds_program)
		milestone(MILESTONE_COMMAND_START);
	call1(exit_group, status);
}

/* Set by the signals with which busybox's poweroff, halt and reboot ask PID 1. */
static volatile int asked_off, asked_reboot;

static void on_signal(int signal)
{
	if (signal == SIGCHLD)
		child_changed = 1;
	else if (signal == SIGTERM)
		asked_reboot = 1;
	else
		asked_off = 1;
}

static void reboot_if_asked(void)
{
	if (!asked_reboot)
		return;
	call0(sync);
	call4(reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, LINUX_REBOOT_CMD_RESTART, 0);
}

/* As a shell gives it. */
static int exit_status(int status)
{
	return (status & 0x7f) ? SIGNAL_STATUS + (status & 0x7f) : (status >> 8) & 0xff;
}

struct command_state {
	int status, has_ended;
	/* Since the last look at what it has written. */
	int has_begun;
};

/* Runs the command on the terminal and reaps every child until it has ended. Its exit status. */
static int run_on_terminal(void)
{
	long command = call0(fork);

	if (command == 0) {
		if (terminal >= 0)
			take_terminal();
		call1(chdir, "/root");
		run_command(argv);
	}
	/* The foreground is the command's: draining the port from behind it must not stop init. */
	handle(SIGTTOU, SIG_IGN);
	while (command > 0) {
		int status = 0;
		long pid = call4(wait4, -1, &status, 0, 0);

		if (asked_off)
			return 0;
		reboot_if_asked();
		if (pid == command)
			return exit_status(status);
		if (pid < 0 && pid != -EINTR)
			break;
	}
	return STATUS_CANNOT_RUN;
}

/* Reaps what has ended, but nothing behind the command. One that is held begins: it is the only child then. */
static void look_at_children(long command, struct command_state *state)
{
	int status;

	for (long pid; (pid = call4(wait4, -1, &status, WNOHANG, 0)) > 0;) {
		if (has_stopped(status)) {
			forget_child_signals();
			hold_program(pid, &timer->snapshot);
			milestone(MILESTONE_COMMAND_START);
			begin_program(pid);
			state->has_begun = 1;
			return;
		}
		if (pid == command) {
			state->status = exit_status(status);
			state->has_ended = 1;
			return;
		}
	}
}

/* Runs the command between two pipes, and moves what goes through them, until it has ended. Its exit status. */
static int run_with_pipes(void)
{
	static const unsigned long signals = 1UL << (SIGCHLD - 1) | 1UL << (SIGUSR1 - 1) | 1UL << (SIGUSR2 - 1) |
					     1UL << (SIGTERM - 1);
	static const unsigned long none = 0;
	static const int priority = 0;
	struct command_state state = { STATUS_CANNOT_RUN, 0, 0 };
	int in[2], out[2];

	if (is_template)
		warm_up();
	if (call2(pipe2, in, O_CLOEXEC) != 0 || call2(pipe2, out, O_CLOEXEC) != 0)
		return state.status;
	handle(SIGCHLD, on_signal);
	/* Taken in while init sleeps, and not between its look and its sleep. */
	call4(rt_sigprocmask, SIG_BLOCK, &signals, 0, 8);
	open_child_signals();
	open_urandom();
	channel->state = CHANNEL_OPEN;
	long command = call0(fork);

	if (command == 0) {
		call4(rt_sigprocmask, SIG_SETMASK, &none, 0, 8);
		/* Without a terminal, as in a container that was given none. */
		call0(setsid);
		call2(dup2, in[0], 0);
		call2(dup2, out[1], 1);
		call2(dup2, out[1], 2);
		call1(chdir, "/root");
		run_command(is_template ? wait_in_template(&timer->snapshot, terminal_device) : argv);
	}
	/* Whoever writes goes on until the pipe is full, instead of giving way to init for every piece. Not before
	 * the fork: the command would inherit it. */
	call3(sched_setscheduler, 0, SCHED_BATCH, &priority);
	call3(setpriority, PRIO_PROCESS, 0, NICE);
	call1(close, in[0]);
	call1(close, out[1]);
	pipe_input = in[1];
	pipe_output = out[0];
	call3(fcntl, pipe_input, F_SETFL, O_NONBLOCK);
	call3(fcntl, pipe_output, F_SETFL, O_NONBLOCK);
	while (command > 0) {
		/* Before the command gets what was sent to this guest, and not to the one that was saved. */
		struct restore_block *notice = has_notice();

		if (notice)
			become_another(notice);
		/* Of a program that has just begun there is none. */
		unsigned moved = state.has_begun ? 0 : move_output(CHANNEL_RING_BYTES);

		moved += move_input();
		state.has_begun = 0;

		wait_for_bytes(moved > 0);
		if (asked_off) {
			state.status = 0;
			break;
		}
		if (asked_reboot)
			break;
		if (!child_changed)
			continue;
		child_changed = 0;
		look_at_children(command, &state);
		if (state.has_ended)
			break;
		if (!state.has_begun) {
			/* In this order: what comes between the two is seen by the second. */
			forget_child_signals();
			look_at_children(command, &state);
			if (state.has_ended)
				break;
		}
	}
	drain_output();
	reboot_if_asked();
	return state.status;
}

static void power_off(int status)
{
	/* A template's disks are read-only, and its command's output has gone by the channel: nothing is left to be done. */
	if (!is_template || root_device[0] || terminal_is_taken()) {
		/* Nobody may write any more; then the port sends what it still has, even after a Ctrl-S. */
		call2(kill, -1, SIGKILL);
		call3(ioctl, terminal, TCXONC, TCOON);
		call3(ioctl, terminal, TCSBRK, 1);
		call0(sync);
	}
	if (root_device[0])
		leave_root();
	if (timer && timer->magic == BOOT_TIMER_MAGIC) {
		timer->exit_status = (unsigned)status;
		milestone(MILESTONE_COMMAND_END);
		timer->power_off = 1;
	}
	call4(reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, LINUX_REBOOT_CMD_POWER_OFF, 0);
	for (;;)
		call0(pause);
}

__attribute__((used)) static void start(void)
{
	environment = first_environment;
	open_timer();
	milestone(MILESTONE_INIT);
	mount_all();
	read_cmdline();
	if (!argv[0]) {
		argv[0] = "/bin/sh";
		argv[1] = "-l";
	}
	set_limits();
	raise_loopback();
	int has_channel = raw_tty && timer && timer->magic == BOOT_TIMER_MAGIC && open_channel(timer->channel, &timer->channel);

	if (has_channel)
		open_wake_up();
	else
		open_terminal();
	handle(SIGUSR1, on_signal);
	handle(SIGUSR2, on_signal);
	handle(SIGTERM, on_signal);
	if (root_device[0] && !change_root(root_device)) {
		say("init: cannot mount ");
		say(root_device);
		say("\n");
		root_device[0] = 0;
		power_off(STATUS_CANNOT_RUN);
	}
	set_names();
	if (network && !configure_network(network, root_device[0]))
		say("init: cannot set up the network of the command line's ip=\n");
	power_off(has_channel ? run_with_pipes() : run_on_terminal());
}

/* The kernel enters with a 16-byte aligned stack; a called function expects it 8 bytes off. */
__asm__(".globl _start\n_start:\n\txor %ebp, %ebp\n\tcall start\n\thlt\n");
