/* The front becomes Node, as the first lines of dist/vmlet-runtime.js do it by a shell (vmm/bundle/bundle.mjs tells why): that
 * program is beside this one. */
#ifndef VMLET_FRONT_LAUNCH_H
#define VMLET_FRONT_LAUNCH_H

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "container.h"

#define PROGRAM "vmlet-runtime.js"
#define EXIT_NO_NODE 127

/* Node is about to forget which signals this process ignores. */
static void keep_ignored_signals(void)
{
	char text[8192];
	char *line;

	if (!read_text(AT_FDCWD, "/proc/self/status", text, sizeof(text)) || !(line = strstr(text, "\nSigIgn:\t")))
		return;
	line += strlen("\nSigIgn:\t");
	line[strcspn(line, "\n")] = 0;
	setenv("VMLET_SIGIGN", line, 1);
}

/* Returns an exit code if that cannot be. `option` and `value`, or NULL: what Node is told beside the words, behind argv[at]. */
static int become_node(int argc, char **argv, int at, char *option, char *value)
{
	static char *flags[] = {"node", NODE_FLAGS "--"};
	const int flag_count = sizeof(flags) / sizeof(*flags);
	char path[PATH_MAX + sizeof(PROGRAM)];
	ssize_t length = readlink("/proc/self/exe", path, PATH_MAX);
	char **words = calloc((size_t)(flag_count + argc + 4), sizeof(*words));
	int count = 0;

	if (length <= 0 || length >= PATH_MAX || !words) {
		fputs("vmlet-runtime: cannot tell where its program is\n", stderr);
		return EXIT_NO_NODE;
	}
	path[length] = 0;
	strcpy(strrchr(path, '/') + 1, PROGRAM);
	for (int i = 0; i < flag_count; i++)
		words[count++] = flags[i];
	words[count++] = path;
	for (int i = 1; i < argc; i++) {
		words[count++] = argv[i];
		if (i == at && option)
			words[count++] = option;
		if (i == at && value)
			words[count++] = value;
	}
	keep_ignored_signals();
	unsetenv("NODE_EXTRA_CA_CERTS");
	execvp("node", words);
	fprintf(stderr, "vmlet-runtime: node: %s\n", strerror(errno));
	return EXIT_NO_NODE;
}

#endif
