/* The monitor's page (devices/pseudo/boot-timer.ts), reached through /dev/mem: milestones, the exit status, power, and where
 * the command channel is. */
#ifndef VMLET_TIMER_H
#define VMLET_TIMER_H

#include <asm/fcntl.h>
#include <linux/mman.h>
#include <linux/stat.h>

#include "syscall.h"

#define BOOT_TIMER_GPA 0xc0000000UL
#define BOOT_TIMER_MAGIC 0x544c4d56U
#define MILESTONE_INIT 123
#define MILESTONE_COMMAND_START 124
#define MILESTONE_COMMAND_END 125
#define DEV_MEM ((1 << 8) | 1) /* makedev(1, 1) */

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

static struct boot_timer *timer;

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

static int has_timer(void)
{
	return timer && timer->magic == BOOT_TIMER_MAGIC;
}

#endif
