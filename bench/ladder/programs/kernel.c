/* Work that the kernel does: system calls, processes, switches between them, page faults. */
#include <asm/mman.h>

#include "probe.h"
#include "runtime.h"

#define PAGE 4096UL
#define FAULTS 64

static void call(long n)
{
	for (long i = 0; i < n; i++)
		CALL(__NR_getppid);
}

void system_calls(uint64_t budget_ns)
{
	measure("system_call_ns", call, budget_ns);
}

static void spawn(long n)
{
	static const char *const argv[] = { "probe", "nothing", NULL };
	static const char *const environment[] = { NULL };

	for (long i = 0; i < n; i++) {
		long pid = CALL(__NR_fork);

		if (pid == 0) {
			CALL(__NR_execve, "bin/probe", argv, environment);
			CALL(__NR_exit_group, 127);
		}
		if (pid < 0)
			die("fork", pid);
		if (wait_for(pid) != 0)
			die("fork+exec", 0);
	}
}

void fork_exec(uint64_t budget_ns)
{
	measure("fork_exec_ns", spawn, budget_ns);
}

static int there[2], back[2];

/* A byte to the other process and back: two switches. */
static void bounce(long n)
{
	char byte = 0;

	for (long i = 0; i < n; i++)
		if (CALL(__NR_write, there[1], &byte, 1) != 1 || CALL(__NR_read, back[0], &byte, 1) != 1)
			die("pipe", 0);
}

void context_switches(uint64_t budget_ns)
{
	if (CALL(__NR_pipe, there) < 0 || CALL(__NR_pipe, back) < 0)
		die("pipe", 0);
	long pid = CALL(__NR_fork);

	if (pid < 0)
		die("fork", pid);
	if (pid == 0) {
		char byte;

		CALL(__NR_close, there[1]);
		while (CALL(__NR_read, there[0], &byte, 1) == 1 && CALL(__NR_write, back[1], &byte, 1) == 1)
			;
		CALL(__NR_exit_group, 0);
	}
	measure("pipe_round_trip_ns", bounce, budget_ns);
	CALL(__NR_close, there[1]);
	wait_for(pid);
}

/* Enough of them that the three system calls around do not count. */
static void fault(long n)
{
	for (long i = 0; i < n; i++) {
		volatile char *window = allocate(PAGE * FAULTS);

		CALL(__NR_madvise, window, PAGE * FAULTS, MADV_NOHUGEPAGE);
		for (unsigned long page = 0; page < FAULTS; page++)
			window[PAGE * page] = 1;
		CALL(__NR_munmap, window, PAGE * FAULTS);
	}
}

void page_faults(uint64_t budget_ns)
{
	measure("page_faults_64_ns", fault, budget_ns);
}
