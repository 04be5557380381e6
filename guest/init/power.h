/* The end of the guest. */
#ifndef VMLET_POWER_H
#define VMLET_POWER_H

#include <asm/ioctls.h>
#include <asm/signal.h>
#include <asm/termbits.h>
#include <linux/reboot.h>

#include "cmdline.h"
#include "signals.h"
#include "syscall.h"
#include "timer.h"
#include "world.h"

#define SIGNAL_STATUS 128
#define WNOHANG 1

static long terminal = -1;

/* The terminal has become the command's (template.h). */
static int terminal_is_taken(void);

static void reboot_if_asked(void)
{
	if (!asked_reboot)
		return;
	call0(sync);
	call4(reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, LINUX_REBOOT_CMD_RESTART, 0);
}

static void power_off(int status)
{
	/* A template's disks are read-only, and its command's output has gone by the channel: nothing is left to be done. */
	if (!is_template || is_agent || root_device[0] || terminal_is_taken()) {
		/* Nobody may write any more; then the port sends what it still has, even after a Ctrl-S. */
		call2(kill, -1, SIGKILL);
		call3(ioctl, terminal, TCXONC, TCOON);
		call3(ioctl, terminal, TCSBRK, 1);
		call0(sync);
	}
	if (root_device[0])
		leave_root();
	if (has_timer()) {
		timer->exit_status = (unsigned)status;
		milestone(MILESTONE_COMMAND_END);
		timer->power_off = 1;
	}
	call4(reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, LINUX_REBOOT_CMD_POWER_OFF, 0);
	for (;;)
		call0(pause);
}

#endif
