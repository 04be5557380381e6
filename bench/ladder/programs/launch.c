/* Starts one program, or several at once, and says when each printed its marker and when it ended.
 *
 *   launch [-n COUNT] [-t TIMEOUT_MS] [-c CGROUP]... [-u MOUNT] -m MARKER -- PROGRAM [ARGUMENT...]
 *
 * Every rung of the ladder is started by this, so that all pay the same for being measured. "@I@"
 * in an argument becomes the number of the instance. -c moves the launcher, and so all that it
 * starts, into a control group, -u hides a mount from them: both before the clock runs.
 *
 * It prints one line of JSON an event:
 *   {"event":"start","instance":0,"pid":17}
 *   {"event":"first","instance":0,"ms":1.234}              MARKER came, counted from the fork
 *   {"event":"again","instance":0,"ms":1.345}              MARKER came once more
 *   {"event":"end","instance":0,"ms":2.345,"end_ms":2.4,"status":0,"output":"...","errors":"..."}
 * end_ms counts from the first fork of all. "status" is 128 + N for signal N; one that had to be
 * stopped has "timeout":true instead. When standard input ends or SIGTERM comes, everything that was
 * started is killed. It is a subreaper: what a program leaves behind is found and killed at the end.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MAX_INSTANCES 64
#define MAX_CGROUPS 16
/* What a program prints beyond this is read and dropped. */
#define MAX_OUTPUT (256 * 1024)
#define MAX_ERRORS 4096
#define KILL_ROUNDS 50
#define KILL_PAUSE_US 20000

struct text {
	char *bytes;
	size_t length, limit;
	int fd;
};

struct instance {
	pid_t pid;
	double started;
	int ended;
	/* Markers so far; the next is looked for from here on. */
	int seen;
	size_t looked_at;
	int status;
	double ended_at;
	int reported;
	struct text output, errors;
};

static struct instance instances[MAX_INSTANCES];
static int count = 1;
static double first_start;
static const char *marker;

static double now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static void die(const char *what)
{
	fprintf(stderr, "launch: %s: %s\n", what, strerror(errno));
	exit(70);
}

static void enter_cgroup(const char *folder)
{
	char path[4096];

	snprintf(path, sizeof path, "%s/cgroup.procs", folder);
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, "0", 1) != 1)
		die(path);
	close(fd);
}

static void hide_mount(const char *folder)
{
	if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		die("unshare");
	if (umount2(folder, MNT_DETACH) < 0)
		die(folder);
}

/* A copy of argv with "@I@" replaced by the number. */
static char **numbered(char **argv, int argc, int number)
{
	char **copy = calloc((size_t)argc + 1, sizeof *copy);

	for (int i = 0; i < argc; i++) {
		char *at = strstr(argv[i], "@I@");

		if (!at)
			copy[i] = argv[i];
		else if (asprintf(&copy[i], "%.*s%d%s", (int)(at - argv[i]), argv[i], number, at + 3) < 0)
			die("memory");
	}
	return copy;
}

static void start(struct instance *one, char **argv)
{
	int out[2], err[2];

	if (pipe2(out, O_CLOEXEC) < 0 || pipe2(err, O_CLOEXEC) < 0)
		die("pipe");
	one->started = now_ms();
	one->pid = fork();
	if (one->pid < 0)
		die("fork");
	if (one->pid == 0) {
		sigset_t none;

		sigemptyset(&none);
		sigprocmask(SIG_SETMASK, &none, NULL);
		setsid();
		int null = open("/dev/null", O_RDONLY);

		dup2(null, 0);
		dup2(out[1], 1);
		dup2(err[1], 2);
		if (null > 2)
			close(null);
		execvp(argv[0], argv);
		dprintf(2, "%s: %s\n", argv[0], strerror(errno));
		_exit(127);
	}
	close(out[1]);
	close(err[1]);
	one->output = (struct text){ malloc(MAX_OUTPUT + 1), 0, MAX_OUTPUT, out[0] };
	one->errors = (struct text){ malloc(MAX_ERRORS + 1), 0, MAX_ERRORS, err[0] };
}

/* False at the end of the file. */
static int take(struct text *text)
{
	char spill[4096];
	size_t room = text->limit - text->length;
	ssize_t n = room > 0 ? read(text->fd, text->bytes + text->length, room) : read(text->fd, spill, sizeof spill);

	if (n <= 0)
		return 0;
	if (room > 0)
		text->length += (size_t)n;
	text->bytes[text->length] = 0;
	return 1;
}

static void shut(struct text *text)
{
	close(text->fd);
	text->fd = -1;
}

static void print_text(const char *key, const struct text *text)
{
	printf(",\"%s\":\"", key);
	for (size_t i = 0; i < text->length; i++) {
		unsigned char c = (unsigned char)text->bytes[i];

		if (c == '"' || c == '\\')
			printf("\\%c", c);
		else if (c < 0x20 || c > 0x7e)
			printf("\\u%04x", c);
		else
			putchar(c);
	}
	putchar('"');
}

static void report_end(int i, int timed_out)
{
	struct instance *one = &instances[i];

	one->reported = 1;
	printf("{\"event\":\"end\",\"instance\":%d,\"ms\":%.4f,\"end_ms\":%.4f", i, one->ended_at - one->started,
	       one->ended_at - first_start);
	if (timed_out)
		printf(",\"timeout\":true");
	else
		printf(",\"status\":%d",
		       WIFSIGNALED(one->status) ? 128 + WTERMSIG(one->status) : WEXITSTATUS(one->status));
	print_text("output", &one->output);
	print_text("errors", &one->errors);
	printf("}\n");
	fflush(stdout);
}

static void reap(void)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		for (int i = 0; i < count; i++)
			if (instances[i].pid == pid && !instances[i].ended) {
				instances[i].ended = 1;
				instances[i].status = status;
				instances[i].ended_at = now_ms();
			}
}

/* Kills the children that /proc knows; true if there were any. Being a subreaper makes orphans ours. */
static int kill_children(void)
{
	char path[64];
	int found = 0, pid;

	snprintf(path, sizeof path, "/proc/self/task/%d/children", (int)getpid());
	FILE *file = fopen(path, "re");

	if (!file)
		die(path);
	while (fscanf(file, "%d", &pid) == 1) {
		found = 1;
		kill(-pid, SIGKILL);
		kill(pid, SIGKILL);
	}
	fclose(file);
	return found;
}

static void kill_all(void)
{
	for (int round = 0; round < KILL_ROUNDS && kill_children(); round++) {
		usleep(KILL_PAUSE_US);
		reap();
	}
}

static void look_for_marker(int i)
{
	struct instance *one = &instances[i];

	for (const char *at; (at = strstr(one->output.bytes + one->looked_at, marker)) != NULL;) {
		one->looked_at = (size_t)(at - one->output.bytes) + strlen(marker);
		printf("{\"event\":\"%s\",\"instance\":%d,\"ms\":%.4f}\n", one->seen++ ? "again" : "first", i,
		       now_ms() - one->started);
		fflush(stdout);
	}
}

static void run(double deadline, int signals)
{
	for (;;) {
		struct pollfd fds[2 * MAX_INSTANCES + 2];
		int open_ones = 0;

		fds[0] = (struct pollfd){ signals, POLLIN, 0 };
		fds[1] = (struct pollfd){ 0, POLLIN, 0 };
		for (int i = 0; i < count; i++) {
			fds[2 + 2 * i] = (struct pollfd){ instances[i].output.fd, POLLIN, 0 };
			fds[3 + 2 * i] = (struct pollfd){ instances[i].errors.fd, POLLIN, 0 };
			if (!instances[i].reported)
				open_ones++;
		}
		double left = deadline - now_ms();

		if (open_ones == 0)
			return;
		if (left <= 0)
			break;
		if (poll(fds, (nfds_t)(2 + 2 * count), (int)left + 1) < 0 && errno != EINTR)
			die("poll");
		for (int i = 0; i < count; i++) {
			if (fds[2 + 2 * i].revents) {
				if (take(&instances[i].output))
					look_for_marker(i);
				else
					shut(&instances[i].output);
			}
			if (fds[3 + 2 * i].revents && !take(&instances[i].errors))
				shut(&instances[i].errors);
		}
		if (fds[0].revents) {
			struct signalfd_siginfo info;

			if (read(signals, &info, sizeof info) == sizeof info && info.ssi_signo != SIGCHLD)
				break;
			reap();
		}
		if (fds[1].revents) {
			char byte;

			if (read(0, &byte, 1) <= 0)
				break;
		}
		/* A helper that outlives the program may hold the pipe open: the end of the program counts. */
		for (int i = 0; i < count; i++)
			if (instances[i].ended && !instances[i].reported) {
				struct pollfd more = { instances[i].output.fd, POLLIN, 0 };

				while (more.fd >= 0 && poll(&more, 1, 0) > 0 && take(&instances[i].output))
					look_for_marker(i);
				report_end(i, 0);
			}
	}
	double cut = now_ms();

	kill_all();
	for (int i = 0; i < count; i++)
		if (!instances[i].reported) {
			instances[i].ended_at = cut;
			report_end(i, 1);
		}
}

int main(int argc, char **argv)
{
	const char *cgroups[MAX_CGROUPS];
	const char *hidden = NULL;
	int option, cgroup_count = 0;
	double timeout = 10000;

	while ((option = getopt(argc, argv, "+n:t:c:u:m:")) > 0) {
		if (option == 'n')
			count = atoi(optarg);
		else if (option == 't')
			timeout = atof(optarg);
		else if (option == 'c' && cgroup_count < MAX_CGROUPS)
			cgroups[cgroup_count++] = optarg;
		else if (option == 'u')
			hidden = optarg;
		else if (option == 'm')
			marker = optarg;
		else
			return 64;
	}
	argc -= optind;
	argv += optind;
	if (argc < 1 || !marker || count < 1 || count > MAX_INSTANCES) {
		fprintf(stderr, "usage: launch [-n COUNT] [-t MS] [-c CGROUP]... [-u MOUNT] -m MARKER -- PROGRAM...\n");
		return 64;
	}
	for (int i = 0; i < cgroup_count; i++)
		enter_cgroup(cgroups[i]);
	if (hidden)
		hide_mount(hidden);
	/* Its parent's death ends it, and with it everything that it started. */
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	prctl(PR_SET_CHILD_SUBREAPER, 1);

	sigset_t mask;

	sigemptyset(&mask);
	sigaddset(&mask, SIGCHLD);
	sigaddset(&mask, SIGTERM);
	sigaddset(&mask, SIGINT);
	sigaddset(&mask, SIGHUP);
	sigprocmask(SIG_BLOCK, &mask, NULL);
	int signals = signalfd(-1, &mask, SFD_CLOEXEC);

	if (signals < 0)
		die("signalfd");
	char **commands[MAX_INSTANCES];

	for (int i = 0; i < count; i++)
		commands[i] = numbered(argv, argc, i);
	first_start = now_ms();
	for (int i = 0; i < count; i++)
		start(&instances[i], commands[i]);
	for (int i = 0; i < count; i++)
		printf("{\"event\":\"start\",\"instance\":%d,\"pid\":%d}\n", i, (int)instances[i].pid);
	fflush(stdout);
	run(first_start + timeout, signals);
	kill_all();
	return 0;
}
