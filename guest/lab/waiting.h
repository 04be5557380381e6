/* A vmlet that was started before the machine's state was saved, has loaded and run its code, and waits for its
 * work on a socket: vmm/cli/lab-work.ts is the other end. Its standard streams come later, as descriptors that it
 * already has, or as the name of a terminal. */
#include <sys/socket.h>
#include <time.h>

/* Descriptors of the waiting program. */
#define WORK_FD 3
#define FIRST_PIPE_FD 4
/* Random numbers that a program has stretched itself are made anew once they are old: OpenSSL's after an hour. */
#define CLOCK_BACK_S 86400

static struct {
	pid_t pid;
	int work;
	int input, output, error;
} waiting = { .work = -1 };

/* A piece of a file: its path, NUL, bytes that are added to it. */
static void take_file(char *payload, size_t length)
{
	size_t name = strnlen(payload, length) + 1;

	if (name > length)
		return;
	for (char *at = payload + 1; (at = strchr(at, '/')); at++) {
		*at = 0;
		mkdir(payload, 0755);
		*at = '/';
	}
	int fd = open(payload, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);

	if (fd < 0 || write(fd, payload + name, length - name) != (ssize_t)(length - name))
		power_off(payload);
	close(fd);
}

/* Keeps what is above the descriptors that a child is about to get. */
static int out_of_the_way(int fd)
{
	return fcntl(fd, F_DUPFD_CLOEXEC, 20);
}

static void start_waiting(char **strings, struct request *request)
{
	int work[2], in[2], out[2], err[2];
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	now.tv_sec -= CLOCK_BACK_S;
	clock_settime(CLOCK_REALTIME, &now);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, work) < 0 || pipe2(in, O_CLOEXEC) < 0 ||
	    pipe2(out, O_CLOEXEC) < 0 || pipe2(err, O_CLOEXEC) < 0)
		power_off(strerror(errno));
	waiting.pid = fork();
	if (waiting.pid == 0) {
		int ends[] = { work[1], in[0], out[1], err[1] };
		int null = open("/dev/null", O_RDWR | O_CLOEXEC);

		setsid();
		for (int i = 0; i < 4; i++)
			ends[i] = out_of_the_way(ends[i]);
		null = out_of_the_way(null);
		for (int i = 0; i < 3; i++)
			dup2(null, i);
		for (int i = 0; i < 4; i++)
			dup2(ends[i], WORK_FD + i);
		run_child(strings, request);
	}
	close(work[1]);
	close(in[0]);
	close(out[1]);
	close(err[1]);
	waiting.work = work[0];
	waiting.input = in[1];
	waiting.output = out[0];
	waiting.error = err[0];
}

static void forget_waiting(void)
{
	close_one(&waiting.work);
	close_one(&waiting.input);
	close_one(&waiting.output);
	close_one(&waiting.error);
	waiting.pid = 0;
}

/* It says that it waits, with an empty line, or why it cannot. */
static void hear_waiting(void)
{
	char words[1024];
	ssize_t count = read(waiting.work, words, sizeof(words));

	if (count < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (count == 1 && words[0] == '\n') {
		send_frame('V', NULL, 0);
		return;
	}
	if (count <= 0)
		send_frame('V', "it has ended", 12);
	else
		send_frame('V', words, (size_t)count);
	forget_waiting();
}

/* Gives it a command, as the host has sent it, behind the name of its terminal; it is the child from then on. */
static int hand_over(const char *payload, size_t length, struct request *request)
{
	char terminal[64] = "";
	int master = -1, slave = -1;

	if (waiting.pid == 0)
		return 0;
	if (request->flags & REQUEST_PTY) {
		struct winsize size = { .ws_row = request->rows, .ws_col = request->columns };

		if (openpty(&master, &slave, terminal, NULL, &size) < 0)
			return 0;
		/* The slave stays open until the other has it: a master without one would report its end. */
		fcntl(master, F_SETFD, FD_CLOEXEC);
		fcntl(slave, F_SETFD, FD_CLOEXEC);
	}
	uint32_t name = (uint32_t)strlen(terminal) + 1, total = name + (uint32_t)length;
	char *message = malloc(4 + total);

	memcpy(message, &total, 4);
	memcpy(message + 4, terminal, name);
	memcpy(message + 4 + name, payload, length);
	ssize_t sent = send(waiting.work, message, 4 + total, MSG_NOSIGNAL);

	free(message);
	if (sent != (ssize_t)(4 + total)) {
		close_one(&master);
		close_one(&slave);
		kill(waiting.pid, SIGKILL);
		forget_waiting();
		return 0;
	}
	child.pid = waiting.pid;
	if (master >= 0) {
		char taken;

		/* One byte: it has the terminal. */
		while (read(waiting.work, &taken, 1) < 0 && errno == EINTR)
			;
		close_one(&slave);
		child.output = master;
		child.input = fcntl(master, F_DUPFD_CLOEXEC, 0);
	} else {
		child.input = waiting.input;
		child.output = waiting.output;
		child.error = waiting.error;
		waiting.input = waiting.output = waiting.error = -1;
	}
	forget_waiting();
	return 1;
}
