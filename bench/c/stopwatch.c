/* Times a program from before its fork to its end, without the noise of a big parent process.
 *   stopwatch [-p LIBRARY] FILE PROGRAM [ARGUMENT...]
 * -p sets LD_PRELOAD for the program alone. FILE gets one JSON object: CLOCK_MONOTONIC at the
 * start (ns), wall, user and system time (ms), the peak of the resident set (KiB) and the exit
 * status (128 + signal). The program keeps standard input and output.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000ULL + (uint64_t)t.tv_nsec;
}

static double ms(struct timeval t)
{
	return (double)t.tv_sec * 1e3 + (double)t.tv_usec / 1e3;
}

int main(int argc, char **argv)
{
	const char *library = NULL;

	if (argc > 2 && strcmp(argv[1], "-p") == 0) {
		library = argv[2];
		argc -= 2;
		argv += 2;
	}
	if (argc < 3) {
		fprintf(stderr, "usage: stopwatch [-p LIBRARY] FILE PROGRAM [ARGUMENT...]\n");
		return 64;
	}
	uint64_t started = now_ns();
	pid_t pid = fork();

	if (pid == 0) {
		if (library)
			setenv("LD_PRELOAD", library, 1);
		execvp(argv[2], argv + 2);
		perror(argv[2]);
		_exit(127);
	}
	struct rusage usage;
	int status;

	if (pid < 0 || wait4(pid, &status, 0, &usage) < 0) {
		perror("stopwatch");
		return 1;
	}
	uint64_t ended = now_ns();
	FILE *file = fopen(argv[1], "w");

	if (!file) {
		perror(argv[1]);
		return 1;
	}
	fprintf(file,
		"{\"start_ns\": %llu, \"wall_ms\": %.3f, \"user_ms\": %.3f, \"system_ms\": %.3f, \"max_rss_kib\": %ld, \"status\": %d}\n",
		(unsigned long long)started, (double)(ended - started) / 1e6, ms(usage.ru_utime), ms(usage.ru_stime),
		usage.ru_maxrss, WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status));
	return fclose(file) == 0 ? 0 : 1;
}
