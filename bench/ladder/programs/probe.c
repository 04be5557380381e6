/* The program that runs on every rung:
 *   probe first                     prints the marker and ends
 *   probe idle                      prints the marker and waits to be killed
 *   probe idle-work-idle PAUSE_MS BUDGET_MS   the marker, a pause, the work, the marker again, and waits
 *   probe network ADDRESS PORT BUDGET_MS      the marker, then one line of JSON a workload against peer.c
 *   probe work BUDGET_MS            the marker, then one line of JSON a workload
 *   probe isolation PID KERNEL      the marker, then one line of JSON: what it sees
 *   probe survey BUDGET_MS PID KERNEL   the last two in one start, for rungs that are slow to start
 *   probe nothing                   ends at once; what fork+exec executes
 * In a VM, any of these after:
 *   then-reboot                     a reboot at the end: this kernel has no way to switch every machine off
 *   then-switch-off                 ends a VM of Cloud Hypervisor, which starts again at a reboot
 *   with-disk DEVICE                its ext4 file system is scratch/
 *   with-address NAME ADDRESS NETMASK   brings an interface up
 */
#include <asm/ioctls.h>
#include <linux/reboot.h>

#include "probe.h"
#include "runtime.h"

#define USAGE 64
#define BATCHES 4
/* What takes so many times its budget is asked only once more. */
#define TOO_LONG 4
/* Of the clock, in a batch: a step more or less is 5 % then. */
#define STEPS 20

/* What the clock cannot tell apart: its ticks, or the time that reading it takes. */
static uint64_t clock_step(void)
{
	uint64_t widest = 0;

	for (int i = 0; i < 3; i++) {
		uint64_t before = now_ns(), after;

		while ((after = now_ns()) == before)
			;
		if (after - before > widest)
			widest = after - before;
	}
	return widest;
}

void measure(const char *name, void (*batch)(long n), uint64_t budget_ns)
{
	uint64_t least = budget_ns / (2 * BATCHES);
	const uint64_t countable = STEPS * clock_step();

	if (least < countable)
		least = countable;
	for (long n = 1;; n *= 2) {
		uint64_t started = now_ns();

		batch(n);
		uint64_t took = now_ns() - started;

		if (took < least && n < 1L << 40)
			continue;
		/* The least of a few: what the others took longer is another program's time on this processor. */
		int batches = took > TOO_LONG * budget_ns ? 2 : BATCHES;

		for (int i = 1; i < batches; i++) {
			started = now_ns();
			batch(n);
			uint64_t again = now_ns() - started;

			if (again < took)
				took = again;
		}
		/* The first batch was slow because it was the first: what it touched is there now. */
		if (took < least / 2)
			continue;
		print("{\"metric\":\"");
		print(name);
		print("\",\"total_ns\":");
		print_number((int64_t)took);
		print(",\"count\":");
		print_number(n);
		print("}\n");
		flush();
		return;
	}
}

void skip(const char *name, const char *reason)
{
	print("{\"metric\":\"");
	print(name);
	print("\",\"skipped\":\"");
	print(reason);
	print("\"}\n");
}

/* One processor, as a small VM has: two processes on two would go beyond the limit of CPU time, and
 * wait for the next period; and a switch between processes would be none. The first one: peer.c takes
 * the last, so that a message always goes to another processor, if there is one. */
static void stay_on_the_first_processor(void)
{
	uint64_t allowed[16] = { 0 }, mask[16] = { 0 };
	long error = CALL(__NR_sched_getaffinity, 0, sizeof allowed, allowed);
	size_t word = 0;

	if (error < 0)
		die("sched_getaffinity", error);
	while (word < 15 && allowed[word] == 0)
		word++;
	mask[word] = allowed[word] & -allowed[word];
	error = CALL(__NR_sched_setaffinity, 0, sizeof mask, mask);

	if (error < 0)
		die("sched_setaffinity", error);
}

/* Not all rungs start it in "/", and a plain process's root is not this one. */
static void find_root(void)
{
	if (CALL(__NR_access, "bin/probe", 0) < 0)
		CALL(__NR_chdir, "/");
}

static void work(uint64_t budget_ns)
{
	find_root();
	stay_on_the_first_processor();
	integer_work(budget_ns);
	memory_work(budget_ns);
	system_calls(budget_ns);
	context_switches(budget_ns);
	page_faults(budget_ns);
	fork_exec(budget_ns);
	files(budget_ns);
	disk(budget_ns);
}

/* Cloud Hypervisor's ACPI shutdown device, for kernels without ACPI: sleep state 5, and "go". */
#define SWITCH_OFF_PORT 0x600
#define SWITCH_OFF (5 << 2 | 1 << 5)
#define IOPL_ALL 3

static int then_reboots, then_switches_off, has_disk;

static void finish(void)
{
	if (has_disk)
		unmount_scratch();
	if (!then_reboots && !then_switches_off)
		return;
	/* tcdrain(3): what the serial port still holds would be lost. */
	CALL(__NR_ioctl, 1, TCSBRK, 1);
	if (then_switches_off && CALL(__NR_iopl, IOPL_ALL) == 0)
		__asm__ volatile("outb %0, %1" : : "a"((unsigned char)SWITCH_OFF), "Nd"((unsigned short)SWITCH_OFF_PORT));
	CALL(__NR_reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, LINUX_REBOOT_CMD_RESTART);
}

static void mark(void)
{
	print(MARKER);
	flush();
}

static void idle(void)
{
	for (;;)
		CALL(__NR_pause);
}

static uint64_t budget(const char *ms)
{
	return (uint64_t)parse_number(ms) * 1000000ULL;
}

static int run(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";

	mark();
	if (is_equal(what, "first"))
		return 0;
	if (is_equal(what, "idle"))
		idle();
	if (is_equal(what, "idle-work-idle") && argc == 4) {
		rest_ms(parse_number(argv[2]));
		work(budget(argv[3]));
		mark();
		idle();
	}
	if (is_equal(what, "work") && argc == 3) {
		work(budget(argv[2]));
		return 0;
	}
	if (is_equal(what, "network") && argc == 5) {
		stay_on_the_first_processor();
		network(argv[2], argv[3], budget(argv[4]));
		return 0;
	}
	if (is_equal(what, "isolation") && argc == 4) {
		isolation(argv[2], argv[3]);
		return 0;
	}
	if (is_equal(what, "survey") && argc == 5) {
		isolation(argv[3], argv[4]);
		work(budget(argv[2]));
		return 0;
	}
	print("usage: probe first | idle | idle-work-idle MS MS | work MS | network ADDRESS PORT MS | isolation PID KERNEL"
	      " | survey MS PID KERNEL\n");
	return USAGE;
}

int main(int argc, char **argv)
{
	if (argc > 1 && is_equal(argv[1], "nothing"))
		return 0;
	at_end = finish;
	for (;;) {
		if (argc > 1 && is_equal(argv[1], "then-reboot")) {
			then_reboots = 1;
			argc -= 1, argv += 1;
		} else if (argc > 1 && is_equal(argv[1], "then-switch-off")) {
			then_switches_off = 1;
			argc -= 1, argv += 1;
		} else if (argc > 2 && is_equal(argv[1], "with-disk")) {
			find_root();
			mount_scratch(argv[2]);
			has_disk = 1;
			argc -= 2, argv += 2;
		} else if (argc > 4 && is_equal(argv[1], "with-address")) {
			give_address(argv[2], argv[3], argv[4]);
			argc -= 4, argv += 4;
		} else {
			return run(argc, argv);
		}
	}
}
