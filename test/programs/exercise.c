/* Runs in a guest: exercises what a monitor can get wrong about a processor, and says "ok NAME"
 * or what went wrong.
 *   exercise NAME...     avx float signals threads timers int3; without a name: all
 */
#define _GNU_SOURCE
#include <errno.h>
#include <immintrin.h>
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int failures;

static int fail(const char *what, long got, long wanted)
{
	printf("bad %s: %ld, wanted %ld\n", what, got, wanted);
	failures++;
	return 0;
}

/* Fills all sixteen YMM registers, enters the kernel, and looks at them again. */
__attribute__((target("avx2"))) static int ymm_survive(uint64_t seed, int rounds)
{
	uint64_t in[16][4] __attribute__((aligned(32))), out[16][4] __attribute__((aligned(32)));

	for (int round = 0; round < rounds; round++) {
		for (int i = 0; i < 64; i++)
			in[i / 4][i % 4] = seed * (uint64_t)(i + 1) + (uint64_t)round;
		memset(out, 0, sizeof(out));
		long yield = SYS_sched_yield;

		__asm__ volatile("vmovdqa 0(%1), %%ymm0\n\tvmovdqa 32(%1), %%ymm1\n\tvmovdqa 64(%1), %%ymm2\n\t"
				 "vmovdqa 96(%1), %%ymm3\n\tvmovdqa 128(%1), %%ymm4\n\tvmovdqa 160(%1), %%ymm5\n\t"
				 "vmovdqa 192(%1), %%ymm6\n\tvmovdqa 224(%1), %%ymm7\n\tvmovdqa 256(%1), %%ymm8\n\t"
				 "vmovdqa 288(%1), %%ymm9\n\tvmovdqa 320(%1), %%ymm10\n\tvmovdqa 352(%1), %%ymm11\n\t"
				 "vmovdqa 384(%1), %%ymm12\n\tvmovdqa 416(%1), %%ymm13\n\tvmovdqa 448(%1), %%ymm14\n\t"
				 "vmovdqa 480(%1), %%ymm15\n\t"
				 "syscall\n\t"
				 "vmovdqa %%ymm0, 0(%2)\n\tvmovdqa %%ymm1, 32(%2)\n\tvmovdqa %%ymm2, 64(%2)\n\t"
				 "vmovdqa %%ymm3, 96(%2)\n\tvmovdqa %%ymm4, 128(%2)\n\tvmovdqa %%ymm5, 160(%2)\n\t"
				 "vmovdqa %%ymm6, 192(%2)\n\tvmovdqa %%ymm7, 224(%2)\n\tvmovdqa %%ymm8, 256(%2)\n\t"
				 "vmovdqa %%ymm9, 288(%2)\n\tvmovdqa %%ymm10, 320(%2)\n\tvmovdqa %%ymm11, 352(%2)\n\t"
				 "vmovdqa %%ymm12, 384(%2)\n\tvmovdqa %%ymm13, 416(%2)\n\tvmovdqa %%ymm14, 448(%2)\n\t"
				 "vmovdqa %%ymm15, 480(%2)\n\t"
				 : "+a"(yield)
				 : "r"(in), "r"(out)
				 : "rcx", "r11", "memory");
		if (memcmp(in, out, sizeof(in)) != 0)
			return 0;
	}
	return 1;
}

static int test_avx(void)
{
	if (!__builtin_cpu_supports("avx2")) {
		printf("no avx2 here\n");
		return 1;
	}
	pid_t children[2];

	for (int i = 0; i < 2; i++) {
		children[i] = fork();
		if (children[i] == 0)
			_exit(ymm_survive(i ? 0x9e3779b97f4a7c15u : 0x0123456789abcdefu, 60) ? 0 : 1);
	}
	for (int i = 0; i < 2; i++) {
		int status;

		waitpid(children[i], &status, 0);
		if (status != 0)
			return fail("ymm registers of a process", status, 0);
	}
	return 1;
}

static int test_float(void)
{
	long double x87 = 1;
	double sum = 0;

	for (int i = 1; i <= 20; i++)
		x87 *= i;
	for (int i = 1; i <= 1000; i++)
		sum += 1.0 / ((double)i * i);
	if (x87 != 2432902008176640000.0L)
		return fail("20! in x87", (long)x87, 2432902008176640000L);
	if (fabs(sum - 1.6439345666815615) > 1e-12)
		return fail("sum of 1/i^2, 1e9", (long)(sum * 1e9), 1643934567);
	return fabs(sin(1.0) - 0.8414709848078965) < 1e-15 ? 1 : fail("sin(1) 1e9", (long)(sin(1.0) * 1e9), 841470985);
}

static volatile sig_atomic_t signals_seen;

static void on_signal(int number)
{
	volatile double clobber = 3.5;

	for (int i = 0; i < 10; i++)
		clobber *= 1.25;
	signals_seen += number == SIGUSR1 || number == SIGALRM;
}

static int test_signals(void)
{
	struct sigaction action = { .sa_handler = on_signal };
	double before = 2.718281828459045, after = before;

	sigaction(SIGUSR1, &action, NULL);
	sigaction(SIGALRM, &action, NULL);
	for (int i = 0; i < 20; i++) {
		raise(SIGUSR1);
		after = after * 2 / 2;
	}
	if (signals_seen != 20 || after != before)
		return fail("signals", signals_seen, 20);
	struct itimerval once = { .it_value = { .tv_usec = 30000 } };

	setitimer(ITIMER_REAL, &once, NULL);
	pause();
	if (signals_seen != 21)
		return fail("SIGALRM", signals_seen, 21);
	pid_t child = fork();

	if (child == 0)
		for (;;)
			pause();
	kill(child, SIGKILL);
	int status;

	waitpid(child, &status, 0);
	return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL ? 1 : fail("SIGKILL", status, SIGKILL);
}

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t turn_changed = PTHREAD_COND_INITIALIZER;
static int turn;
static long counter;

static void *take_turns(void *argument)
{
	int mine = (int)(intptr_t)argument;

	for (int i = 0; i < 25; i++) {
		pthread_mutex_lock(&mutex);
		while (turn != mine)
			pthread_cond_wait(&turn_changed, &mutex);
		counter++;
		turn = 1 - mine;
		pthread_cond_broadcast(&turn_changed);
		pthread_mutex_unlock(&mutex);
	}
	return NULL;
}

static int test_threads(void)
{
	pthread_t threads[2];

	for (int i = 0; i < 2; i++)
		if (pthread_create(&threads[i], NULL, take_turns, (void *)(intptr_t)i) != 0)
			return fail("pthread_create", errno, 0);
	for (int i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	return counter == 50 ? 1 : fail("turns", counter, 50);
}

static long now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static int test_timers(void)
{
	long start = now_ms();
	struct timespec fifty = { .tv_nsec = 50000000 };

	nanosleep(&fifty, NULL);
	long slept = now_ms() - start;

	if (slept < 50 || slept > 5000)
		return fail("50 ms of sleep", slept, 50);
	int fd = timerfd_create(CLOCK_MONOTONIC, 0);
	struct itimerspec every = { .it_value = { .tv_nsec = 20000000 }, .it_interval = { .tv_nsec = 20000000 } };
	uint64_t count, total = 0;

	timerfd_settime(fd, 0, &every, NULL);
	while (total < 3 && read(fd, &count, sizeof(count)) == sizeof(count))
		total += count;
	close(fd);
	return total >= 3 ? 1 : fail("timerfd", (long)total, 3);
}

static void __attribute__((noinline)) traced_function(void)
{
	__asm__ volatile("nop");
}

/* A debugger's breakpoint: INT3 in another process's text, by PTRACE_POKETEXT. */
static int test_int3(void)
{
	pid_t child = fork();

	if (child == 0) {
		ptrace(PTRACE_TRACEME, 0, 0, 0);
		raise(SIGSTOP);
		traced_function();
		_exit(42);
	}
	int status;

	waitpid(child, &status, 0);
	long at = (long)traced_function, text = ptrace(PTRACE_PEEKTEXT, child, at, 0);

	ptrace(PTRACE_POKETEXT, child, at, (text & ~0xffL) | 0xcc);
	ptrace(PTRACE_CONT, child, 0, 0);
	waitpid(child, &status, 0);
	if (!WIFSTOPPED(status) || WSTOPSIG(status) != SIGTRAP)
		return fail("stop at the breakpoint", status, SIGTRAP);
	struct user_regs_struct regs;

	ptrace(PTRACE_GETREGS, child, 0, &regs);
	if ((long)regs.rip != at + 1)
		return fail("rip at the breakpoint", (long)regs.rip - at, 1);
	regs.rip--;
	ptrace(PTRACE_POKETEXT, child, at, text);
	ptrace(PTRACE_SETREGS, child, 0, &regs);
	ptrace(PTRACE_SINGLESTEP, child, 0, 0);
	waitpid(child, &status, 0);
	if (!WIFSTOPPED(status) || WSTOPSIG(status) != SIGTRAP)
		return fail("stop after one step", status, SIGTRAP);
	ptrace(PTRACE_CONT, child, 0, 0);
	waitpid(child, &status, 0);
	return WIFEXITED(status) && WEXITSTATUS(status) == 42 ? 1 : fail("the child's end", status, 42 << 8);
}

static const struct {
	const char *name;
	int (*run)(void);
} tests[] = {
	{ "float", test_float },     { "avx", test_avx },	{ "signals", test_signals },
	{ "threads", test_threads }, { "timers", test_timers }, { "int3", test_int3 },
};

int main(int argc, char **argv)
{
	for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {
		int wanted = argc == 1;

		for (int a = 1; a < argc; a++)
			wanted |= strcmp(argv[a], tests[i].name) == 0;
		if (!wanted)
			continue;
		if (tests[i].run())
			printf("ok %s\n", tests[i].name);
		fflush(stdout);
	}
	return failures != 0;
}
