/* How init hears of signals: of its children, and of those with which busybox's poweroff, halt and reboot ask PID 1. */
#ifndef VMLET_SIGNALS_H
#define VMLET_SIGNALS_H

#include <asm/fcntl.h>
#include <asm/signal.h>

#include "syscall.h"

/* What a signal handler returns to: the kernel wants it from user space on x86-64. */
__asm__("restore:\n\tmov $15, %eax\n\tsyscall\n");
extern void restore(void);

/* Set when a child has ended or stopped: by SIGCHLD, or by what a descriptor tells of that signal, which is cheaper. */
static volatile int child_changed;
static long child_signals = -1;
static unsigned long sleeping_mask;
static volatile int asked_off, asked_reboot;

static void handle(int signal, void (*handler)(int))
{
	struct sigaction action = {
		.sa_handler = handler,
		.sa_flags = SA_RESTORER,
		.sa_restorer = restore,
	};

	call4(rt_sigaction, signal, &action, 0, 8);
}

static void on_signal(int signal)
{
	if (signal == SIGCHLD)
		child_changed = 1;
	else if (signal == SIGTERM)
		asked_reboot = 1;
	else
		asked_off = 1;
}

/* SIGCHLD, which is blocked, wakes init through a descriptor: no handler, and no way back from one. */
static void open_child_signals(void)
{
	static const unsigned long mask = 1UL << (SIGCHLD - 1);

	child_signals = call4(signalfd4, -1, &mask, sizeof(mask), O_NONBLOCK | O_CLOEXEC);
	if (child_signals >= 0)
		sleeping_mask = mask;
}

/* What has come until now has been looked at. */
static void forget_child_signals(void)
{
	static char dropped[128];

	if (child_signals >= 0)
		call3(read, child_signals, dropped, sizeof(dropped));
}

#endif
