/* The attendant: a process that stays outside of the jail for as long as the VM lives, and does at its end what has to be done on the
 * host: files, sockets and links are removed, the record of the VM is finished. All of it is settled before the seal, by a VM that
 * nothing hostile runs in; after it the VM can say that it ends, with which number, and that its log is full, and have a program that
 * listens for its guest connected. Its end is noticed whatever brings it about. vmm/jail/attendant.ts is the other side.
 *
 * A message: its length as 32 bits, what it is as one byte, then
 *   r PATH            remove that at the end: a file, a link, or a folder with files
 *   n PATH 0 TARGET   remove that link at the end if it leads there
 *   w PATH 0 TEXT     write that at the end: a JSON object without its end, to which the exit code, the time and the error are added
 *   l PATH            the log
 *   p PATH            programs that listen for the guest do so at PATH_PORT
 *   s                 the seal: nothing of the above is taken any more
 *   t                 the log becomes PATH.1, and the answer is a byte with the descriptor of a new one
 *   c PORT            a connection to PATH_PORT, decimal: the answer is a byte, with its descriptor if there is one
 *   e CODE ERROR      the end: a byte, a text. The answer is that this process ends
 */
#ifndef VMLET_LAUNCHER_ATTENDANT_H
#define VMLET_LAUNCHER_ATTENDANT_H

#include <dirent.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>

#include "lines.h"
#include "undo.h"

#define ATTENDANT_VARIABLE "VMLET_ATTENDANT"
#define MOST_MESSAGE_BYTES (2 * 1024 * 1024)
#define MOST_TASKS 32
#define MOST_ERROR_BYTES 1000
/* 4294967295 */
#define MOST_PORT_DIGITS 10
#define EXIT_CODE_OF_KILLED 137
#define ERROR_OF_KILLED "the process in which it lived was killed"

struct task {
	char what;
	char *path;
	/* Behind the path's zero. */
	char *text;
};

struct attendant {
	int socket;
	bool is_sealed;
	int count;
	struct task tasks[MOST_TASKS];
};

/* A folder has files, and no folders. */
static void remove_path(const char *path)
{
	if (unlink(path) == 0 || errno != EISDIR)
		return;
	int folder = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *list = folder < 0 ? NULL : fdopendir(folder);

	if (!list)
		return;
	for (struct dirent *entry; (entry = readdir(list));)
		unlinkat(folder, entry->d_name, 0);
	closedir(list);
	rmdir(path);
}

static void remove_link(const char *path, const char *target)
{
	char found[4096];
	ssize_t length = readlink(path, found, sizeof(found) - 1);

	if (length < 0)
		return;
	found[length] = 0;
	if (strcmp(found, target) == 0)
		unlink(path);
}

/* What the VM says of its end becomes a string of JSON, whatever it is. */
static void make_harmless(char *text)
{
	for (; *text; text++)
		if (*text < ' ' || *text > '~' || *text == '"' || *text == '\\')
			*text = '?';
}

static void write_record(const struct task *task, int code, const char *error)
{
	const char *draft = text_of("%s.new", task->path);
	struct timespec now;
	struct tm parts;
	char finished[64];
	int fd = open(draft, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);

	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &parts);
	strftime(finished, sizeof(finished), "%Y-%m-%dT%H:%M:%S", &parts);
	if (fd < 0)
		return;
	int length = dprintf(fd, "%s,\"exitCode\":%d,\"finished\":\"%s.%03ldZ\"%s%s%s}\n", task->text, code, finished,
			     now.tv_nsec / 1000000, *error ? ",\"error\":\"" : "", error, *error ? "\"" : "");

	close(fd);
	if (length < 0 || rename(draft, task->path) < 0)
		unlink(draft);
}

static _Noreturn void end_attendance(const struct attendant *attendant, int code, const char *error)
{
	/* The record before the sockets: whoever finds none of those looks at it. */
	for (int at = 0; at < attendant->count; at++)
		if (attendant->tasks[at].what == 'w')
			write_record(&attendant->tasks[at], code, error);
	for (int at = 0; at < attendant->count; at++) {
		const struct task *task = &attendant->tasks[at];

		if (task->what == 'r')
			remove_path(task->path);
		else if (task->what == 'n')
			remove_link(task->path, task->text);
	}
	_exit(0);
}

/* A byte, with that descriptor, which is closed here; without one if it is -1. */
static void answer(const struct attendant *attendant, int fd)
{
	char byte = 0;
	char control[CMSG_SPACE(sizeof(int))] = {0};
	struct iovec bytes = {.iov_base = &byte, .iov_len = 1};
	struct msghdr message = {.msg_iov = &bytes, .msg_iovlen = 1};

	if (fd >= 0) {
		message.msg_control = control;
		message.msg_controllen = sizeof(control);
		struct cmsghdr *header = CMSG_FIRSTHDR(&message);

		header->cmsg_level = SOL_SOCKET;
		header->cmsg_type = SCM_RIGHTS;
		header->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(header), &fd, sizeof(int));
	}
	if (sendmsg(attendant->socket, &message, MSG_NOSIGNAL) < 0)
		_exit(EXIT_FAILED);
	if (fd >= 0)
		close(fd);
}

static void turn_log(const struct attendant *attendant)
{
	int fd = -1;

	for (int at = 0; at < attendant->count && fd < 0; at++) {
		const struct task *task = &attendant->tasks[at];

		if (task->what != 'l')
			continue;
		if (rename(task->path, task->text) == 0)
			fd = open(task->path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
	}
	answer(attendant, fd);
}

/* -1 if nobody listens there, or so many wait already that this would have to. */
static int connection_to(const char *path, const char *port)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	const int length = snprintf(address.sun_path, sizeof(address.sun_path), "%s_%s", path, port);

	if (length < 0 || (size_t)length >= sizeof(address.sun_path))
		return -1;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
		return fd;
	close(fd);
	return -1;
}

static void connect_program(const struct attendant *attendant, const char *port)
{
	int fd = -1;
	const size_t digits = strspn(port, "0123456789");

	/* No other part of a path is the VM's to say. */
	if (digits > 0 && digits <= MOST_PORT_DIGITS && port[digits] == 0)
		for (int at = 0; at < attendant->count && fd < 0; at++)
			if (attendant->tasks[at].what == 'p')
				fd = connection_to(attendant->tasks[at].path, port);
	answer(attendant, fd);
}

/* `text` ends with a zero, and is kept. */
static void add_task(struct attendant *attendant, char what, char *text, uint32_t length)
{
	const size_t path = strlen(text);

	if (attendant->is_sealed || attendant->count == MOST_TASKS || *text != '/')
		return;
	attendant->tasks[attendant->count++] = (struct task){
		.what = what,
		.path = text,
		.text = what == 'l' ? text_of("%s.1", text) : path < length ? text + path + 1 : text + path,
	};
}

static void take_message(struct attendant *attendant, char *message, uint32_t length)
{
	switch (*message) {
	case 'r':
	case 'n':
	case 'w':
	case 'l':
	case 'p':
		add_task(attendant, *message, message + 1, length - 1);
		return;
	case 's':
		attendant->is_sealed = true;
		break;
	case 't':
		turn_log(attendant);
		break;
	case 'c':
		connect_program(attendant, message + 1);
		break;
	case 'e':
		if (length < 2)
			_exit(EXIT_FAILED);
		if (length > 2 + MOST_ERROR_BYTES)
			message[2 + MOST_ERROR_BYTES] = 0;
		make_harmless(message + 2);
		end_attendance(attendant, (unsigned char)message[1], message + 2);
	}
	free(message);
}

/* Undefined content if it returns false: the other end has closed. */
static bool read_whole(int fd, void *to, size_t length)
{
	for (size_t done = 0; done < length;) {
		ssize_t count = read(fd, (char *)to + done, length - done);

		if (count == 0 || (count < 0 && errno != EINTR))
			return false;
		if (count > 0)
			done += (size_t)count;
	}
	return true;
}

static bool read_message(struct attendant *attendant)
{
	uint32_t length;

	if (!read_whole(attendant->socket, &length, sizeof(length)) || length == 0 || length > MOST_MESSAGE_BYTES)
		return false;
	char *message = malloc(length + 1);

	if (!message || !read_whole(attendant->socket, message, length))
		return false;
	message[length] = 0;
	take_message(attendant, message, length);
	return true;
}

/* `process`: a descriptor of the VM's process, or -1. */
static _Noreturn void attend(struct attendant *attendant, int process)
{
	struct pollfd wanted[2] = {{.fd = attendant->socket, .events = POLLIN}, {.fd = process, .events = POLLIN}};

	for (;;) {
		if (poll(wanted, 2, -1) < 0 && errno != EINTR)
			break;
		if (wanted[0].revents ? !read_message(attendant) : wanted[1].revents != 0)
			break;
	}
	end_attendance(attendant, EXIT_CODE_OF_KILLED, ERROR_OF_KILLED);
}

/* It has nothing open but these two. */
static _Noreturn void begin_attendance(int socket, int process)
{
	const int nothing = open("/dev/null", O_RDWR | O_CLOEXEC);
	/* First where no other's place is. */
	const int behind = STDERR_FILENO + 3;
	const int far[2] = {fcntl(socket, F_DUPFD, behind), process < 0 ? -1 : fcntl(process, F_DUPFD, behind)};
	struct attendant self = {.socket = dup2(far[0], STDERR_FILENO + 1)};
	const int own = process < 0 ? -1 : dup2(far[1], STDERR_FILENO + 2);

	/* Too few may be open. The VM hears of it with its first message. */
	if (self.socket < 0)
		_exit(EXIT_FAILED);
	for (int fd = 0; fd <= STDERR_FILENO; fd++)
		dup2(nothing, fd);
	close_from(STDERR_FILENO + (own < 0 ? 2 : 3));
	/* Signals of the terminal are the VM's. */
	setsid();
	signal(SIGTERM, SIG_IGN);
	signal(SIGINT, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	prctl(PR_SET_NAME, "vmlet-attendant", 0, 0, 0);
	if (chdir("/") < 0)
		_exit(EXIT_FAILED);
	/* For the VM's process, which takes it at its seal: to make one takes the kernel a while. A user who is not root makes none here. */
	unshare(CLONE_NEWNET);
	attend(&self, own);
}

/* Leaves an attendant behind for this process, which is to become the VM's. False with errno. */
static bool leave_attendant(void)
{
	int pair[2];
	const pid_t owner = getpid();
	/* Since Linux 5.3; without it, the socket's end tells. */
	const int process = (int)syscall(SYS_pidfd_open, owner, 0);

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0)
		return false;
	const pid_t attendant = fork();

	if (attendant < 0)
		return false;
	if (attendant == 0)
		begin_attendance(pair[1], process);
	close(pair[1]);
	if (process >= 0)
		close(process);
	/* Node keeps the number of this process: nobody else takes the words for its own. */
	setenv(ATTENDANT_VARIABLE, text_of("%d %d %d", owner, pair[0], attendant), 1);
	return true;
}

#endif
