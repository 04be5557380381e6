/* The runtime's front: engines call it, and what is simple it does itself, in a millisecond. Node's own start takes thirty, and
 * an engine waits for three or four of them with each container. All else, and all that is not as it should be, is Node's: the
 * front becomes dist/vmlet-runtime.js with the same words. It decides by the container's file "front" (vmm/oci/front-file.ts),
 * which create writes last.
 */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "container.h"
#include "delete.h"
#include "early.h"
#include "launch.h"
#include "monitor.h"

#define DEFAULT_ROOT "/run/vmlet-runtime"
#define SIGKILL_NUMBER 9
#define SIGTERM_NUMBER 15
/* As Node's commands have them, ms. */
#define KILL_LIMIT_MS 500
#define ANSWER_LIMIT_MS 10000

/* Of runc's global options: those that the front knows, and that mean nothing to what it does but for the root. */
static const char *const with_value[] = {"root", "log", "log-format", "jail", NULL};
static const char *const without_value[] = {"debug", "systemd-cgroup", NULL};

struct command {
	const char *root;
	const char *name;
	char **words;
	int count;
};

/* False: not for the front. */
static bool parse(int argc, char **argv, struct command *command)
{
	int at = 1;

	command->root = DEFAULT_ROOT;
	for (; at < argc && argv[at][0] == '-'; at++) {
		const char *name = argv[at] + (argv[at][1] == '-' ? 2 : 1);
		size_t length = strcspn(name, "=");
		const char *value = name[length] == '=' ? name + length + 1 : NULL;

		if (is_in(without_value, name, length) && !value)
			continue;
		if (!is_in(with_value, name, length))
			return false;
		if (!value && at + 1 == argc)
			return false;
		if (!value)
			value = argv[++at];
		if (strncmp(name, "root", length) == 0 && length == 4)
			command->root = value;
		else if (length == 10 && strcmp(value, "text") != 0 && strcmp(value, "json") != 0)
			return false;
		else if (length == 4 && strncmp(name, "jail", 4) == 0 && strcmp(value, "on") != 0 && strcmp(value, "off") != 0)
			return false;
	}
	if (at >= argc || *command->root == 0)
		return false;
	command->name = argv[at];
	command->words = argv + at + 1;
	command->count = argc - at - 1;
	return true;
}

/* 0: not a signal that the front knows. */
static int signal_number(const char *word)
{
	static const struct {
		const char *name;
		int number;
	} names[] = {{"HUP", 1}, {"INT", 2}, {"QUIT", 3}, {"KILL", 9}, {"USR1", 10}, {"USR2", 12}, {"TERM", 15}};
	size_t digits = strspn(word, "0123456789");

	if (digits > 0 && digits <= 2 && word[digits] == 0) {
		int number = atoi(word);

		return number <= 31 ? number : 0;
	}
	if (strncmp(word, "SIG", 3) == 0)
		word += 3;
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
		if (strcmp(word, names[i].name) == 0)
			return names[i].number;
	return 0;
}

/* True: done. */
static bool kill_command(const struct command *command)
{
	struct container container;
	char request[64];
	char reply[MAX_REPLY];
	int number = SIGTERM_NUMBER;

	if (command->count < 1 || command->count > 2 || command->words[0][0] == '-')
		return false;
	if (command->count == 2)
		number = signal_number(command->words[1]);
	if (number == 0 || !open_container(command->root, command->words[0], &container))
		return false;
	snprintf(request, sizeof(request), "{\"signal\":%d}\n", number);
	return ask_monitor(&container, request, number == SIGKILL_NUMBER ? KILL_LIMIT_MS : ANSWER_LIMIT_MS, reply) &&
	       strcmp(reply, REPLY_OK) == 0;
}

/* `answer`: of a monitor that has been asked, and has not started it. */
static bool start_command(const struct command *command, char **answer)
{
	struct container container;
	static char reply[MAX_REPLY];

	if (command->count != 1 || command->words[0][0] == '-')
		return false;
	if (!open_container(command->root, command->words[0], &container) || !container.may_start)
		return false;
	if (!ask_monitor(&container, "{\"start\":true}\n", -1, reply))
		return false;
	if (strcmp(reply, REPLY_OK) == 0)
		return true;
	/* Node knows how to tell of it; it must not ask again. */
	*answer = reply;
	return false;
}

static bool delete_command(const struct command *command)
{
	struct container container;
	bool is_forced = false;
	const char *id = NULL;

	for (int i = 0; i < command->count; i++) {
		const char *word = command->words[i];

		if (strcmp(word, "--force") == 0 || strcmp(word, "-f") == 0)
			is_forced = true;
		else if (word[0] == '-' || id)
			return false;
		else
			id = word;
	}
	if (!id || !is_name(id))
		return false;
	if (is_forced && !is_there(command->root, id))
		return true;
	return open_container(command->root, id, &container) && container.may_delete && remove_container(&container);
}

int main(int argc, char **argv)
{
	struct command command;
	char *option = NULL;
	char *answer = NULL;
	int at = 0;

	if (parse(argc, argv, &command)) {
		if (strcmp(command.name, "start") == 0 && start_command(&command, &answer))
			return 0;
		if (answer)
			option = "--answer";
		if (strcmp(command.name, "kill") == 0 && kill_command(&command))
			return 0;
		if (strcmp(command.name, "delete") == 0 && delete_command(&command))
			return 0;
		if (strcmp(command.name, "create") == 0)
			option = start_monitor(argv[0], command.root, command.words, command.count);
		if (strcmp(command.name, "exec") == 0)
			option = start_relay(argv[0], command.root, command.words, command.count);
		at = (int)(command.words - argv) - 1;
	}
	return become_node(argc, argv, at, option, answer);
}
