/* The lab's PID 1: runs commands for the host over one virtio-serial port, or over two serial
 * lines whose names it is given: the one that it writes to and the one that it reads from.
 *
 * A frame is a type byte, a little-endian u32 length and that many bytes.
 * From the host:  X run a command (struct request, then NUL-terminated strings: working
 *                 directory, argv, environment)   I standard input   E its end
 *                 S signal (u8)   W window size (u16 rows, u16 columns)
 *                 T begin (struct begin): the time, randomness, how many disks there are
 *                 D a piece of a file (path, NUL, bytes)   B start a vmlet that waits for its
 *                 command (as X): what comes before the machine's state is saved
 * To the host:    N the machine is new, and waits for T, or for what comes before a save
 *                 V the vmlet waits; or why it cannot   R ready   O standard output   2 standard error
 *                 F a file of /output (name, NUL, content)
 *                 Z the command has ended (u32 exit status, u32 signal)
 *                 A the command has taken the input of one I frame, or will never: the next may come
 *                 P how far the start is, in words (sent before the agent runs)
 *                 H nothing has happened for a while, but the lab is alive
 * One command at a time. When the host hangs up, the lab powers off; a serial line does not tell.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <linux/serial.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#define OUTPUT_FOLDER "/output"
#define CHUNK 32768
#define HEARTBEAT_MS 5000
#define MAX_FRAME (1 << 20)
#define REQUEST_PTY 1
/* For the vmlet that waits, if there is one. */
#define REQUEST_VMLET 2
#define STATUS_CANNOT_RUN 127

struct request {
	uint8_t flags, reserved;
	uint16_t rows, columns, argc, envc;
} __attribute__((packed));

/* The same port twice, or one line each way. */
static int port = -1, port_in = -1;

static struct {
	pid_t pid;
	int input, output, error;
	int pty;
	int ended;
	int status;
} child = { .input = -1, .output = -1, .error = -1 };

/* Input that the command has not taken yet. */
static char *pending;
static size_t pending_length, pending_done;
static int pending_end;

static char frame[MAX_FRAME + 5];
static size_t frame_length;

/* `why` is for the console, which the host shows when the lab has gone. */
static void power_off(const char *why)
{
	fprintf(stderr, "lab: %s\n", why);
	sync();
	reboot(RB_POWER_OFF);
	for (;;)
		pause();
}

static void write_all(const void *bytes, size_t length)
{
	const char *at = bytes;

	while (length > 0) {
		ssize_t count = write(port, at, length);

		if (count > 0) {
			at += count;
			length -= (size_t)count;
		} else if (count < 0 && errno == EAGAIN) {
			struct pollfd wait = { .fd = port, .events = POLLOUT };

			poll(&wait, 1, -1);
			if (wait.revents & POLLHUP)
				power_off("the host has hung up");
		} else if (count < 0 && errno != EINTR) {
			power_off(strerror(errno));
		}
	}
}

static void send_frame(char type, const void *bytes, size_t length)
{
	char header[5] = { type };
	uint32_t size = (uint32_t)length;

	memcpy(header + 1, &size, 4);
	write_all(header, sizeof(header));
	write_all(bytes, length);
}

static void mount_one(const char *type, const char *at, const char *data)
{
	if (mount(type, at, type, 0, data) < 0)
		fprintf(stderr, "lab: mount %s: %s\n", at, strerror(errno));
}

static void close_one(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static void drop_pending(void)
{
	if (pending != NULL)
		send_frame('A', NULL, 0);
	free(pending);
	pending = NULL;
	pending_length = pending_done = 0;
	pending_end = 0;
}

static void run_child(char **strings, struct request *request)
{
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (chdir(strings[0]) < 0)
		fprintf(stderr, "lab: %s: %s\n", strings[0], strerror(errno));
	char **argv = calloc(request->argc + 1u, sizeof(char *));

	memcpy(argv, strings + 1, request->argc * sizeof(char *));
	clearenv();
	for (int i = 0; i < request->envc; i++)
		putenv(strings[1 + request->argc + i]);
	execvp(argv[0], argv);
	fprintf(stderr, "lab: %s: %s\n", argv[0], strerror(errno));
	_exit(STATUS_CANNOT_RUN);
}

/* The strings of a request; NULL if it has fewer than it says. A child has its own copy. */
static char **strings_of(char *payload, size_t length, struct request *request)
{
	static char **strings;
	size_t count = 0;

	if (length < sizeof(*request))
		return NULL;
	memcpy(request, payload, sizeof(*request));
	size_t wanted = 1u + request->argc + request->envc;

	free(strings);
	strings = calloc(wanted, sizeof(char *));
	for (size_t at = sizeof(*request); at < length && count < wanted; at += strlen(payload + at) + 1)
		strings[count++] = payload + at;
	return count == wanted && request->argc > 0 ? strings : NULL;
}

#include "begin.h"
#include "waiting.h"

static void start_command(char *payload, size_t length)
{
	struct request request;
	char **strings = strings_of(payload, length, &request);

	if (strings == NULL) {
		uint32_t end[2] = { STATUS_CANNOT_RUN, 0 };

		send_frame('Z', end, sizeof(end));
		return;
	}
	drop_pending();
	child.ended = 0;
	child.pty = request.flags & REQUEST_PTY;
	if ((request.flags & REQUEST_VMLET) && hand_over(payload, length, &request)) {
		/* It has begun. */
	} else if (child.pty) {
		struct winsize size = { .ws_row = request.rows, .ws_col = request.columns };
		int master;

		child.pid = forkpty(&master, NULL, NULL, &size);
		if (child.pid == 0)
			run_child(strings, &request);
		child.output = master;
		child.input = dup(master);
	} else {
		int in[2], out[2], err[2];

		if (pipe2(in, O_CLOEXEC) < 0 || pipe2(out, O_CLOEXEC) < 0 || pipe2(err, O_CLOEXEC) < 0)
			power_off(strerror(errno));
		child.pid = fork();
		if (child.pid == 0) {
			setsid();
			dup2(in[0], 0);
			dup2(out[1], 1);
			dup2(err[1], 2);
			run_child(strings, &request);
		}
		close(in[0]);
		close(out[1]);
		close(err[1]);
		child.input = in[1];
		child.output = out[0];
		child.error = err[0];
	}
	fcntl(child.input, F_SETFL, O_NONBLOCK);
	fcntl(child.output, F_SETFL, O_NONBLOCK);
	if (child.error >= 0)
		fcntl(child.error, F_SETFL, O_NONBLOCK);
}

static void feed_input(void)
{
	while (pending_done < pending_length) {
		ssize_t count = write(child.input, pending + pending_done, pending_length - pending_done);

		if (count < 0 && errno == EAGAIN)
			return;
		if (count < 0 && errno == EINTR)
			continue;
		if (count < 0) {
			/* Nobody reads it any more. */
			drop_pending();
			close_one(&child.input);
			return;
		}
		pending_done += (size_t)count;
	}
	int end = pending_end;

	drop_pending();
	if (end && !child.pty)
		close_one(&child.input);
}

static void take_frame(char type, char *payload, size_t length)
{
	switch (type) {
	case 'X':
		if (child.pid == 0)
			start_command(payload, length);
		break;
	case 'T':
		begin(payload, length);
		break;
	case 'D':
		take_file(payload, length);
		break;
	case 'B': {
		struct request request;
		char **strings = strings_of(payload, length, &request);

		if (strings != NULL && waiting.pid == 0)
			start_waiting(strings, &request);
		break;
	}
	case 'I':
		if (child.input < 0) {
			send_frame('A', NULL, 0);
			break;
		}
		pending = malloc(length);
		memcpy(pending, payload, length);
		pending_length = length;
		pending_done = 0;
		feed_input();
		break;
	case 'E':
		pending_end = 1;
		if (child.input >= 0)
			feed_input();
		break;
	case 'S':
		if (child.pid > 0 && length == 1)
			kill(child.pty ? child.pid : -child.pid, payload[0]);
		break;
	case 'W':
		if (child.pty && child.input >= 0 && length == 4) {
			struct winsize size = { 0 };

			memcpy(&size.ws_row, payload, 2);
			memcpy(&size.ws_col, payload + 2, 2);
			ioctl(child.input, TIOCSWINSZ, &size);
		}
		break;
	}
}

/* Reads what has come and takes complete frames, but no further one while input is pending. */
static void serve_port(void)
{
	if (frame_length < sizeof(frame)) {
		ssize_t count = read(port_in, frame + frame_length, sizeof(frame) - frame_length);

		if (count == 0 || (count < 0 && errno != EAGAIN && errno != EINTR))
			power_off(count == 0 ? "the host has hung up" : strerror(errno));
		if (count > 0)
			frame_length += (size_t)count;
	}
}

static void take_frames(void)
{
	while (frame_length >= 5 && pending == NULL) {
		uint32_t size;

		memcpy(&size, frame + 1, 4);
		if (size > MAX_FRAME)
			power_off("bytes from the host have been lost");
		if (frame_length < 5 + size)
			return;
		/* The payload ends in a NUL that is the next frame's type: keep it. */
		char saved = frame[5 + size];

		if (5 + size < sizeof(frame))
			frame[5 + size] = 0;
		take_frame(frame[0], frame + 5, size);
		frame[5 + size] = saved;
		frame_length -= 5 + size;
		memmove(frame, frame + 5 + size, frame_length);
	}
}

/* One read; 0 at the end of the stream. */
static int forward(int *fd, char type)
{
	static char bytes[CHUNK];
	ssize_t count = read(*fd, bytes, sizeof(bytes));

	if (count > 0) {
		send_frame(type, bytes, (size_t)count);
		return 1;
	}
	if (count < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	close_one(fd);
	return 0;
}

static void send_files(void)
{
	DIR *folder = opendir(OUTPUT_FOLDER);

	if (folder == NULL)
		return;
	for (struct dirent *entry; (entry = readdir(folder));) {
		char path[512];
		struct stat stat;

		snprintf(path, sizeof(path), OUTPUT_FOLDER "/%s", entry->d_name);
		if (lstat(path, &stat) < 0 || !S_ISREG(stat.st_mode))
			continue;
		size_t name = strlen(entry->d_name) + 1;
		char *payload = malloc(name + (size_t)stat.st_size);
		int fd = open(path, O_RDONLY | O_CLOEXEC);

		memcpy(payload, entry->d_name, name);
		ssize_t count = read(fd, payload + name, (size_t)stat.st_size);

		close(fd);
		send_frame('F', payload, name + (count > 0 ? (size_t)count : 0));
		free(payload);
		unlink(path);
	}
	closedir(folder);
}

static void reap(void)
{
	int status;

	for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
		if (pid == child.pid) {
			child.ended = 1;
			child.status = status;
		}
	}
}

static void finish_command(void)
{
	/* What the command wrote before it ended is in the pipes now. */
	while (child.output >= 0 && forward(&child.output, 'O'))
		;
	while (child.error >= 0 && forward(&child.error, '2'))
		;
	close_one(&child.input);
	close_one(&child.output);
	close_one(&child.error);
	drop_pending();
	send_files();
	uint32_t end[2] = {
		WIFEXITED(child.status) ? (uint32_t)WEXITSTATUS(child.status) : 0,
		WIFSIGNALED(child.status) ? (uint32_t)WTERMSIG(child.status) : 0,
	};

	child.pid = 0;
	child.ended = 0;
	send_frame('Z', end, sizeof(end));
}

/* The emulated UART drops what does not fit into its FIFO; without one it waits until a byte is read.
 * The driver gives errors for an open line that changes its type: it is opened for this alone. */
static void turn_off_fifo(const char *path)
{
	struct serial_struct serial;
	int fd = open(path, O_RDONLY | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);

	if (fd < 0 || ioctl(fd, TIOCGSERIAL, &serial) < 0)
		power_off(path);
	serial.type = PORT_16450;
	if (ioctl(fd, TIOCSSERIAL, &serial) < 0)
		power_off(path);
	close(fd);
}

/* Every byte as it is. */
static int open_line(const char *path, int flags)
{
	struct termios mode;
	int fd = open(path, flags | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);

	if (fd < 0 || tcgetattr(fd, &mode) < 0)
		power_off(path);
	cfmakeraw(&mode);
	mode.c_cflag |= CLOCAL | CREAD;
	cfsetspeed(&mode, B115200);
	tcsetattr(fd, TCSANOW, &mode);
	return fd;
}

static void open_port(void)
{
	for (int tries = 0; tries < 500; tries++) {
		glob_t found;

		if (glob("/dev/vport*p1", 0, NULL, &found) == 0) {
			port = open(found.gl_pathv[0], O_RDWR | O_NONBLOCK | O_CLOEXEC);
			globfree(&found);
			port_in = port;
			if (port >= 0)
				return;
		}
		usleep(10000);
	}
	power_off("no virtio-serial port");
}

int main(int argc, char **argv)
{
	mount_one("devtmpfs", "/dev", "mode=0755");
	mkdir("/dev/pts", 0755);
	mount_one("devpts", "/dev/pts", "gid=5,mode=0620,ptmxmode=0666");
	mkdir("/dev/shm", 01777);
	mount_one("tmpfs", "/dev/shm", "mode=1777");
	mount_one("proc", "/proc", NULL);
	mount_one("sysfs", "/sys", NULL);
	mount_one("tmpfs", "/tmp", "mode=1777");
	mount_one("tmpfs", "/run", "mode=0755");
	mount_one("tmpfs", "/root", "mode=0700");
	mount_one("tmpfs", OUTPUT_FOLDER, "mode=0755");
	symlink("/proc/self/fd", "/dev/fd");
	sethostname("lab", 3);

	sigset_t signals;

	sigemptyset(&signals);
	sigaddset(&signals, SIGCHLD);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	signal(SIGPIPE, SIG_IGN);
	int children = signalfd(-1, &signals, SFD_NONBLOCK | SFD_CLOEXEC);

	if (argc == 3) {
		turn_off_fifo(argv[2]);
		port = open_line(argv[1], O_WRONLY);
		port_in = open_line(argv[2], O_RDONLY);
		/* A machine without a saved state: it is this run's from its start. */
		mount_input();
		send_frame('R', NULL, 0);
	} else {
		open_port();
		send_frame('N', NULL, 0);
	}
	for (;;) {
		struct pollfd polls[] = {
			{ .fd = pending == NULL ? port_in : -1, .events = POLLIN },
			{ .fd = children, .events = POLLIN },
			{ .fd = child.output, .events = POLLIN },
			{ .fd = child.error, .events = POLLIN },
			{ .fd = pending != NULL ? child.input : -1, .events = POLLOUT },
			{ .fd = waiting.work, .events = POLLIN },
		};

		if (poll(polls, 6, HEARTBEAT_MS) == 0)
			send_frame('H', NULL, 0);
		if (polls[0].revents & POLLHUP)
			power_off("the host has hung up");
		if (polls[0].revents & POLLIN)
			serve_port();
		if (polls[4].revents)
			feed_input();
		if (polls[5].revents)
			hear_waiting();
		take_frames();
		if (polls[2].revents && child.output >= 0)
			forward(&child.output, 'O');
		if (polls[3].revents && child.error >= 0)
			forward(&child.error, '2');
		if (polls[1].revents & POLLIN) {
			struct signalfd_siginfo info;

			while (read(children, &info, sizeof(info)) > 0)
				;
			reap();
		}
		if (child.ended)
			finish_command();
	}
}
