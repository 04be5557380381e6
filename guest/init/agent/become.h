/* A command's own process, between fork and exec: it reads its request, becomes who and what is asked for, and runs the
 * program. Whatever goes wrong is said in memory that it shares with the agent. */
#ifndef VMLET_AGENT_BECOME_H
#define VMLET_AGENT_BECOME_H

#include <asm/errno.h>
#include <asm/fcntl.h>
#include <asm/ioctls.h>
#include <linux/ptrace.h>
#include <linux/resource.h>

#include "../execute.h"
#include "../syscall.h"
#include "../text.h"
#include "container.h"
#include "protocol.h"
#include "users.h"

/* The shell's, and what is added to the variables. */
#define MORE_WORDS 8
/* Behind the standard three: where the request comes from, and /dev/null; both are closed by exec. */
#define REQUEST_FD 3
#define NULL_FD 4
#define ROOT_HOME "/root"

/* Shared with the agent, from the fork on. */
struct start {
	unsigned length;
	/* The terminal's name, or empty. */
	char terminal[32];
	/* "HOSTNAME=" and it. */
	char host_name[80];
	/* The process that has gone on in the place of the one that was forked: the kernel writes it (namespaces.h). */
	volatile int successor;
	/* The guest ends with it: its end is told as soon as that is known. */
	volatile int ends_guest;
	struct refusal refusal;
	char payload[FRAME_PAYLOAD + 1];
	/* Every string may be empty: one byte of the payload. */
	char *words[FRAME_PAYLOAD + 2 * MORE_WORDS];
};

struct exec_strings {
	char *folder, *user;
	char **steps, **arguments, **variables;
};

static int refuse_with(long error, const char *text, const char *name)
{
	const char *end = refusal->text + sizeof(refusal->text);

	append(append(refusal->text, end, text), end, name);
	refusal->status = STATUS_CANNOT_RUN;
	refusal->error = (int)-error;
	return STATUS_CANNOT_RUN;
}

/* The lists behind the request's head; false if they are not what it says. */
static int read_strings(struct start *start, char *at, char *end, unsigned steps, struct exec_strings *strings)
{
	const struct exec_request *request = (const struct exec_request *)start->payload;
	/* A place before the first argument, for the shell. */
	char **next = start->words + 1;
	unsigned long count = 2UL + steps + request->arguments + request->variables;

	if (request->arguments < 1 || count > FRAME_PAYLOAD)
		return 0;
	strings->steps = next;
	for (unsigned long i = 0; i < count; i++) {
		char *string = at;

		while (at < end && *at)
			at++;
		if (at++ >= end)
			return 0;
		if (i == 0)
			strings->folder = string;
		else if (i == 1)
			strings->user = string;
		else
			*next++ = string;
		if (i == 1UL + steps)
			strings->arguments = next;
		if (i == 1UL + steps + request->arguments) {
			*next++ = 0;
			strings->variables = next;
		}
	}
	*next = 0;
	return at == end;
}

static int has_variable(char **variables, const char *name)
{
	for (; *variables; variables++) {
		const char *given = *variables, *wanted = name;

		while (*wanted != '=' && *given == *wanted)
			given++, wanted++;
		if (*wanted == '=' && *given == '=')
			return 1;
	}
	return 0;
}

static void add_variable(char **variables, char *variable)
{
	if (has_variable(variables, variable))
		return;
	while (*variables)
		variables++;
	variables[0] = variable;
	variables[1] = 0;
}

static void add_home(char **variables, const struct user *user)
{
	static char home[MAX_PATH + 8] = "HOME=";

	append(home + 5, home + sizeof(home), user->home[0] ? user->home : "/");
	add_variable(variables, home);
}

static void add_defaults(char **variables, unsigned flags, const struct user *user, char *host)
{
	static char path[] = "PATH=" DEFAULT_PATH, term[] = "TERM=xterm";

	add_variable(variables, path);
	add_home(variables, user);
	if (flags & EXEC_TERMINAL)
		add_variable(variables, term);
	add_variable(variables, host);
}

/* Along PATH of the command's own variables. */
static const char *folders_of(char **variables)
{
	for (; *variables; variables++) {
		const char *given = *variables, *name = "PATH=";

		while (*name && *given == *name)
			given++, name++;
		if (!*name)
			return given;
	}
	return DEFAULT_PATH;
}

/* Every part of the path that is not there. */
static void make_folders(const char *path)
{
	static char part[MAX_PATH];
	char *at = part;

	while (*path && at < part + sizeof(part) - 1) {
		*at++ = *path++;
		*at = 0;
		if (*path == '/' || !*path)
			call2(mkdir, part, 0755);
	}
}

/* It is in the guest's own root, and whose session it becomes is known later. */
static int sit_down(const char *terminal)
{
	long fd = call3(open, terminal, O_RDWR | O_NOCTTY, 0);

	if (fd < 0)
		return refuse_with(fd, "cannot open the terminal ", terminal);
	for (int i = 0; i < 3; i++)
		call2(dup2, fd, i);
	if (fd > 2)
		call1(close, fd);
	return 0;
}

static int set_rlimits(const struct exec_limit *limits, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		unsigned long values[2] = { limits[i].soft, limits[i].hard };
		long result = limits[i].zero ? -EINVAL : call4(prlimit64, 0, limits[i].resource, values, 0);

		if (result != 0)
			return refuse_with(result, "cannot set a limit: ", result == -EPERM ? "not permitted" : "not a valid one");
	}
	return 0;
}

/* `is_exact`: the groups are those that are given, and no others; `needs_home`: where the user is at home is asked for, too. */
static int become_user(struct user *user, const char *text, const unsigned *groups, unsigned count, int is_exact,
		       int needs_home)
{
	const char *missing = is_exact ? resolve_exactly(user, text, needs_home) : resolve_user(user, text);
	long result;

	if (missing)
		return refuse_with(-EINVAL, "no such user or group in the guest: ", missing);
	/* To the kernel the largest number means none: the process would stay root. */
	if (user->uid > MAX_ID || user->gid > MAX_ID)
		return refuse_with(-EINVAL, "users and groups have numbers from 0 to 2147483647: ", text);
	if (is_exact) {
		user->group_count = 0;
		own_streams(user->uid);
	}
	for (unsigned i = 0; i < count; i++)
		add_group(user, groups[i]);
	result = call2(setgroups, user->group_count, user->groups);
	if (result == 0)
		result = call3(setresgid, user->gid, user->gid, user->gid);
	if (result == 0)
		result = call3(setresuid, user->uid, user->uid, user->uid);
	return result == 0 ? 0 : refuse_with(result, "cannot become the user ", text);
}

static int enter_folder(const char *folder, const struct user *user)
{
	long result;

	if (!folder[0]) {
		/* The process is where root is at home already. */
		if (!is_same(user->home, ROOT_HOME) && call1(chdir, user->home) != 0)
			call1(chdir, "/");
		return 0;
	}
	result = call1(chdir, folder);
	if (result == 0)
		return 0;
	/* ENOENT is the program's alone. */
	return refuse_with(result == -ENOENT ? -ENOTDIR : result,
			   result == -ENOENT ? "the working directory is not there: " :
					       "cannot change to the working directory ",
			   folder);
}

/* What has to do with the guest's own root. The steps that are done are in `*done`. */
static int leave_guest(struct start *start, const struct exec_container *container, char **steps, unsigned *done)
{
	long result = container->flags & CONTAINER_OOM_SCORE ? set_oom_score(container->oom_score) : 0;
	int status = result == 0 ? 0 : refuse_with(result, "cannot set the score of the out-of-memory killer", "");

	if (status == 0)
		status = take_steps(steps, container->steps, done, 0);
	if (status == 0)
		status = enter_cgroup();
	return status == 0 ? enter_namespaces(container, &start->successor) : status;
}

static int enter_container(struct start *start, const struct exec_container *container, char **steps, unsigned done)
{
	long result;
	int status = done < container->steps ? take_steps(steps, container->steps, &done, start->terminal) : 0;

	/* Whether or not there was a root among them. */
	call1(chdir, "/");
	if (status == 0 && (container->flags & CONTAINER_CAPABILITIES)) {
		result = drop_bounding(container->bounding);
		if (result != 0)
			status = refuse_with(result, "cannot drop capabilities", "");
	}
	if (status == 0 && !(container->flags & CONTAINER_NO_NEW_PRIVILEGES) && (result = apply_filter()) != 0)
		status = refuse_with(result, "cannot apply the filter of system calls", "");
	return status;
}

/* Once it is the user that it is to be. */
static int limit_process(const struct exec_container *container)
{
	long result = container->flags & CONTAINER_CAPABILITIES ? set_capabilities(container) : 0;

	if (container->flags & CONTAINER_UMASK)
		call1(umask, container->umask);
	if (result == 0 && (container->flags & CONTAINER_NO_NEW_PRIVILEGES))
		result = call5(prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	if (result == 0 && (container->flags & CONTAINER_NO_NEW_PRIVILEGES))
		result = apply_filter();
	return result == 0 ? 0 : refuse_with(result, "cannot limit what the program may", "");
}

/* Comes back with the status that says why not. */
static int become_command(struct start *start)
{
	static struct user user = { 0 };
	const struct exec_request *request = (const struct exec_request *)start->payload;
	const struct exec_limit *limits = (const struct exec_limit *)(start->payload + sizeof(*request));
	const unsigned *groups;
	struct exec_strings strings = { 0 };
	struct exec_container container = { 0 };
	int is_container = request->flags & EXEC_CONTAINER;
	unsigned steps_done = 0;
	char *end = start->payload + start->length, *at;
	int status;

	refusal = &start->refusal;
	if (request->limits > FRAME_PAYLOAD / sizeof(*limits) || request->groups > MAX_GROUPS)
		return refuse_with(-EINVAL, "the request is not a valid one", "");
	groups = (const unsigned *)(limits + request->limits);
	at = (char *)(groups + request->groups);
	if (is_container && at + sizeof(container) <= end) {
		memcpy(&container, at, sizeof(container));
		start->ends_guest = (container.flags & CONTAINER_ENDS_GUEST) != 0;
		at += sizeof(container);
	} else if (is_container) {
		at = end;
	}
	if (at > end || !read_strings(start, at, end, container.steps, &strings))
		return refuse_with(-EINVAL, "the request is not a valid one", "");
	if (start->terminal[0] && (status = sit_down(start->terminal)))
		return status;
	if (is_container && (status = leave_guest(start, &container, strings.steps, &steps_done)))
		return status;
	if (start->terminal[0])
		call3(ioctl, 0, TIOCSCTTY, 0);
	if (!start->terminal[0] && (request->flags & EXEC_MERGED))
		call2(dup2, 1, 2);
	if (!start->terminal[0] && (request->flags & EXEC_NO_INPUT))
		call2(dup2, NULL_FD, 0);
	if ((status = set_rlimits(limits, request->limits)))
		return status;
	/* As root: asked for by another user, it would take from the program what its file gives it (setuid, capabilities). */
	if (request->flags & EXEC_HOLD)
		call4(ptrace, PTRACE_TRACEME, 0, 0, 0);
	if (is_container && (status = enter_container(start, &container, strings.steps, steps_done)))
		return status;
	if (request->flags & EXEC_MAKE_FOLDER)
		make_folders(strings.folder);
	append(user.home, user.home + MAX_PATH, ROOT_HOME);
	if (strings.user[0]) {
		int needs_home = !strings.folder[0] || !has_variable(strings.variables, "HOME=");

		if ((status = become_user(&user, strings.user, groups, request->groups, is_container, needs_home)))
			return status;
	} else if (request->groups) {
		long result = call2(setgroups, request->groups, groups);

		if (result != 0)
			return refuse_with(result, "cannot set the groups", "");
	}
	if (is_container && (status = limit_process(&container)))
		return status;
	if ((status = enter_folder(strings.folder, &user)))
		return status;
	if (is_container)
		add_home(strings.variables, &user);
	if (!(request->flags & EXEC_CLEAN))
		add_defaults(strings.variables, request->flags, &user, start->host_name);
	environment = strings.variables;
	return attempt(strings.arguments, folders_of(strings.variables));
}

#endif
