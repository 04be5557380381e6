/* The program that runs on every rung:
 *   probe first                     prints the marker and ends
 *   probe idle                      prints the marker and waits to be killed
 *   probe work BUDGET_MS            the marker, then one line of JSON a workload
 *   probe isolation PID KERNEL      the marker, then one line of JSON: what it sees
 *   probe survey BUDGET_MS PID KERNEL   the last two in one start, for rungs that are slow to start
 *   probe nothing                   ends at once; what fork+exec executes
 *   probe then-reboot ...           any of these, then a reboot: what ends a VM whose kernel has no way to
 *                                   switch the machine off
 */
#include <asm/ioctls.h>
#include <linux/reboot.h>

#include "probe.h"
#include "runtime.h"

#define USAGE 64
#define BATCHES 4
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
		for (int i = 1; i < BATCHES; i++) {
			started = now_ns();
			batch(n);
			uint64_t again = now_ns() - started;

			if (again < took)
				took = again;
		}
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
 * wait for the next period; and a switch between processes would be none. */
static void stay_on_this_processor(void)
{
	unsigned int processor = 0;
	uint64_t mask[16] = { 0 };

	CALL(__NR_getcpu, &processor, 0, 0);
	mask[processor / 64 % 16] = 1ULL << processor % 64;
	long error = CALL(__NR_sched_setaffinity, 0, sizeof mask, mask);

	if (error < 0)
		die("sched_setaffinity", error);
}

static void work(const char *budget_ms)
{
	static const char self[] = "bin/probe";

	uint64_t budget_ns = (uint64_t)parse_number(budget_ms) * 1000000ULL;

	/* Not all rungs start it in "/", and a plain process's root is not this one. */
	if (CALL(__NR_access, self, 0) < 0)
		CALL(__NR_chdir, "/");
	stay_on_this_processor();
	integer_work(budget_ns);
	memory_work(budget_ns);
	system_calls(budget_ns);
	context_switches(budget_ns);
	page_faults(budget_ns);
	fork_exec(budget_ns);
	files(budget_ns);
	disk(budget_ns);
}

static void reboot(void)
{
	/* tcdrain(3): what the serial port still holds would be lost. */
	CALL(__NR_ioctl, 1, TCSBRK, 1);
	CALL(__NR_reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, LINUX_REBOOT_CMD_RESTART);
}

static int run(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";

	print(MARKER);
	flush();
	if (is_equal(what, "first"))
		return 0;
	if (is_equal(what, "idle"))
		for (;;)
			CALL(__NR_pause);
	if (is_equal(what, "work") && argc == 3) {
		work(argv[2]);
		return 0;
	}
	if (is_equal(what, "isolation") && argc == 4) {
		isolation(argv[2], argv[3]);
		return 0;
	}
	if (is_equal(what, "survey") && argc == 5) {
		isolation(argv[3], argv[4]);
		work(argv[2]);
		return 0;
	}
	print("usage: probe first | idle | work MS | isolation PID KERNEL | survey MS PID KERNEL\n");
	return USAGE;
}

int main(int argc, char **argv)
{
	if (argc > 1 && is_equal(argv[1], "nothing"))
		return 0;
	if (argc < 2 || !is_equal(argv[1], "then-reboot"))
		return run(argc, argv);
	at_end = reboot;
	return run(argc - 1, argv + 1);
}
