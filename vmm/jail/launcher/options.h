/* The command line: Firecracker's flags of its jailer, and --new-net-ns. What is wrong with it is said before anything is made. */
#ifndef VMLET_LAUNCHER_OPTIONS_H
#define VMLET_LAUNCHER_OPTIONS_H

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/types.h>

#include "undo.h"

#define MAX_VALUES 64
#define MAX_ID 64
#define DEFAULT_BASE "/srv/jailer"

enum flag {
	ID,
	EXEC_FILE,
	UID,
	GID,
	CHROOT_BASE_DIR,
	NETNS,
	NEW_NET_NS,
	DAEMONIZE,
	NEW_PID_NS,
	CGROUP,
	CGROUP_VERSION,
	PARENT_CGROUP,
	RESOURCE_LIMIT,
	HELP,
	VERSION,
	FLAG_COUNT
};

enum takes { NOTHING, A_VALUE, VALUES };

static const struct {
	const char *name;
	enum takes takes;
	/* For --help. */
	const char *value;
	const char *what;
} flags[FLAG_COUNT] = {
	[ID] = {"id", A_VALUE, "ID", "name of the VM: letters, digits and -, at most 64"},
	[EXEC_FILE] = {"exec-file", A_VALUE, "FILE", "vmlet-firecracker, or any program"},
	[UID] = {"uid", A_VALUE, "UID", "the program's user"},
	[GID] = {"gid", A_VALUE, "GID", "the program's group"},
	[CHROOT_BASE_DIR] = {"chroot-base-dir", A_VALUE, "DIR", "root is DIR/NAME OF FILE/ID/root; " DEFAULT_BASE},
	[NETNS] = {"netns", A_VALUE, "FILE", "enters this network namespace"},
	[NEW_NET_NS] = {"new-net-ns", NOTHING, "", "a network namespace without interfaces"},
	[DAEMONIZE] = {"daemonize", NOTHING, "", "own session, standard files /dev/null"},
	[NEW_PID_NS] = {"new-pid-ns", NOTHING, "", "process 1 of a PID namespace of its own"},
	[CGROUP] = {"cgroup", VALUES, "FILE=VALUE", "a limit of its control group, as often as needed"},
	[CGROUP_VERSION] = {"cgroup-version", A_VALUE, "1|2", "of control groups; 1"},
	[PARENT_CGROUP] = {"parent-cgroup", A_VALUE, "PATH", "the group is PATH/ID; NAME OF FILE/ID"},
	[RESOURCE_LIMIT] = {"resource-limit", VALUES, "NAME=N", "fsize, in bytes, or no-file; no-file=2048"},
	[HELP] = {"help", NOTHING, "", ""},
	[VERSION] = {"version", NOTHING, "", ""},
};

struct given {
	const char *values[MAX_VALUES];
	int count;
};

struct options {
	const char *id;
	const char *exec_file;
	/* The last part of its path, as it was given: clients look for the root under it. */
	const char *exec_name;
	uid_t uid;
	gid_t gid;
	const char *base;
	const char *netns;
	bool new_net_ns;
	bool daemonize;
	bool new_pid_ns;
	struct given cgroups;
	int cgroup_version;
	const char *parent_cgroup;
	struct given limits;
	/* What comes behind --. */
	char **extra;
	int extra_count;
};

static enum flag flag_of(const char *word, size_t length)
{
	for (int at = 0; at < FLAG_COUNT; at++)
		if (strlen(flags[at].name) == length && memcmp(flags[at].name, word, length) == 0)
			return (enum flag)at;
	fail("--%.*s: no such option; try --help", (int)length, word);
}

static void read_words(int argc, char **argv, struct given *given, struct options *options)
{
	for (int at = 1; at < argc; at++) {
		const char *word = argv[at];

		if (strcmp(word, "--") == 0) {
			options->extra = argv + at + 1;
			options->extra_count = argc - at - 1;
			return;
		}
		if (strncmp(word, "--", 2) != 0)
			fail("%s: not an option; what is for the program comes behind --", word);
		size_t length = strcspn(word + 2, "=");
		enum flag flag = flag_of(word + 2, length);
		const char *value = word[2 + length] == '=' ? word + 3 + length : NULL;

		if (flags[flag].takes == NOTHING) {
			if (value)
				fail("--%s takes no value: %s", flags[flag].name, value);
			value = "";
		} else if (!value) {
			if (at + 1 == argc)
				fail("--%s needs a value", flags[flag].name);
			value = argv[++at];
		}
		int most = flags[flag].takes == VALUES ? MAX_VALUES : 1;

		if (given[flag].count == most)
			fail("--%s can be given %d time%s at most: %s", flags[flag].name, most, most == 1 ? "" : "s", value);
		given[flag].values[given[flag].count++] = value;
	}
}

static const char *value_of(const struct given *given, enum flag flag, const char *otherwise)
{
	if (given[flag].count > 0)
		return given[flag].values[0];
	if (!otherwise)
		fail("--%s is needed", flags[flag].name);
	return otherwise;
}

/* Decimal digits alone; false if it is more than the limit. */
static bool read_number(const char *text, unsigned long long limit, unsigned long long *number)
{
	errno = 0;
	*number = strtoull(text, NULL, 10);
	return *text != 0 && text[strspn(text, "0123456789")] == 0 && errno == 0 && *number <= limit;
}

/* 2^32 - 1 means "no change" to the kernel. */
static unsigned identity_of(const struct given *given, enum flag flag)
{
	const char *text = value_of(given, flag, NULL);
	unsigned long long number;

	if (!read_number(text, UINT_MAX - 1, &number))
		fail("--%s %s: a number from 0 to %u", flags[flag].name, text, UINT_MAX - 1);
	return (unsigned)number;
}

static void check_id(const char *id)
{
	size_t length = strlen(id);

	for (const char *at = id; *at; at++)
		if (!isalnum((unsigned char)*at) && *at != '-')
			fail("--id %s: letters, digits and - alone", id);
	if (length < 1 || length > MAX_ID)
		fail("--id %s: %zu characters, and it can have 1 to %d", id, length, MAX_ID);
}

/* Stays below the folder that it is joined to. */
static void check_inside(const char *path)
{
	const char *at = path;

	for (;;) {
		size_t length = strcspn(at, "/");

		if (length == 0 || length > NAME_MAX || (at[0] == '.' && (length == 1 || (length == 2 && at[1] == '.'))))
			fail("--parent-cgroup %s: a path without . and .., below the top of the hierarchy", path);
		if (at[length] == 0)
			return;
		at += length + 1;
	}
}

/* "memory.max=1G": the name of one file with its controller before the first dot, and what is written there. */
static void check_cgroup(const char *word)
{
	const char *equals = strchr(word, '=');
	size_t name = equals ? (size_t)(equals - word) : 0;

	if (!equals || equals[1] == 0 || strchr(word, '\n'))
		fail("--cgroup %s: FILE=VALUE, such as memory.max=1G", word);
	if (!isalpha((unsigned char)word[0]) || !memchr(word, '.', name) || memchr(word, '/', name))
		fail("--cgroup %s: the file is CONTROLLER.NAME, such as memory.max", word);
}

static void parse_options(int argc, char **argv, struct given *given, struct options *options)
{
	read_words(argc, argv, given, options);
	if (given[HELP].count + given[VERSION].count > 0)
		return;
	options->id = value_of(given, ID, NULL);
	check_id(options->id);
	options->exec_file = value_of(given, EXEC_FILE, NULL);
	const char *slash = strrchr(options->exec_file, '/');

	options->exec_name = slash ? slash + 1 : options->exec_file;
	options->uid = identity_of(given, UID);
	options->gid = identity_of(given, GID);
	options->base = value_of(given, CHROOT_BASE_DIR, DEFAULT_BASE);
	options->netns = given[NETNS].count > 0 ? given[NETNS].values[0] : NULL;
	options->new_net_ns = given[NEW_NET_NS].count > 0;
	if (options->netns && options->new_net_ns)
		fail("--netns %s and --new-net-ns: one of them", options->netns);
	options->daemonize = given[DAEMONIZE].count > 0;
	options->new_pid_ns = given[NEW_PID_NS].count > 0;
	options->cgroups = given[CGROUP];
	for (int at = 0; at < options->cgroups.count; at++)
		check_cgroup(options->cgroups.values[at]);
	const char *version = value_of(given, CGROUP_VERSION, "1");

	if (strcmp(version, "1") != 0 && strcmp(version, "2") != 0)
		fail("--cgroup-version %s: 1 or 2", version);
	options->cgroup_version = *version - '0';
	options->parent_cgroup = value_of(given, PARENT_CGROUP, options->exec_name);
	check_inside(options->parent_cgroup);
	options->limits = given[RESOURCE_LIMIT];
}

#endif
