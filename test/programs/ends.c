/* A program that ends in one of several ways.
 *   ends other CODE   one of its other threads ends all of them
 *   ends signal       one of them dies of SIGSEGV
 *   ends first CODE   its first thread ends alone; another says "later" after that, and ends the rest
 *   ends counting N   says "ready"; says how many SIGUSR1 have come once they are N, and ends
 *   ends tracing PID  traces the process for a moment: 0, or the error's number */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#define THREADS 4
#define A_MOMENT_US 300000

static const char *how;
static int number;
static volatile sig_atomic_t heard;

static void on_signal(int signal)
{
	(void)signal;
	heard++;
}

static void *stay(void *unused)
{
	while (!unused)
		pause();
	return unused;
}

static void *end(void *unused)
{
	(void)unused;
	usleep(A_MOMENT_US);
	if (!strcmp(how, "signal"))
		*(volatile int *)0 = 0;
	if (!strcmp(how, "first"))
		puts("later");
	exit(number);
}

static int trace(pid_t pid)
{
	int status;

	if (ptrace(PTRACE_SEIZE, pid, 0, 0) != 0 || ptrace(PTRACE_INTERRUPT, pid, 0, 0) != 0 || waitpid(pid, &status, __WALL) != pid ||
	    ptrace(PTRACE_DETACH, pid, 0, 0) != 0)
		return errno;
	return 0;
}

static int count(void)
{
	sigset_t none, one;

	/* Each is taken by itself: two that wait together are one. */
	sigemptyset(&none);
	sigemptyset(&one);
	sigaddset(&one, SIGUSR1);
	sigprocmask(SIG_BLOCK, &one, 0);
	signal(SIGUSR1, on_signal);
	puts("ready");
	fflush(stdout);
	while (heard < number) {
		sigsuspend(&none);
		printf("%d\n", (int)heard);
		fflush(stdout);
	}
	return 6;
}

int main(int argc, char **argv)
{
	pthread_t thread;

	how = argc > 1 ? argv[1] : "";
	number = argc > 2 ? atoi(argv[2]) : 0;
	if (!strcmp(how, "tracing"))
		return trace(number);
	if (!strcmp(how, "counting"))
		return count();
	for (int i = 1; i < THREADS; i++)
		pthread_create(&thread, 0, stay, 0);
	pthread_create(&thread, 0, end, 0);
	if (!strcmp(how, "first"))
		pthread_exit(0);
	stay(0);
	return 0;
}
