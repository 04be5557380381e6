/* The command at a terminal: the console becomes its controlling terminal; init itself only waits. */
#ifndef VMLET_TERMINAL_H
#define VMLET_TERMINAL_H

#include <asm/errno.h>
#include <asm/fcntl.h>
#include <asm/ioctls.h>
#include <asm/termbits.h>

#include "channel.h"
#include "cmdline.h"
#include "execute.h"
#include "power.h"
#include "signals.h"
#include "timer.h"

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

/* As a shell gives it. */
static int exit_status(int status)
{
	return (status & 0x7f) ? SIGNAL_STATUS + (status & 0x7f) : (status >> 8) & 0xff;
}

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

#endif
