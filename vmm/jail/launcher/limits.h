/* Limits of the process itself: setrlimit(2). Checked at the start, set at the end, because they hold for the launcher, too. */
#ifndef VMLET_LAUNCHER_LIMITS_H
#define VMLET_LAUNCHER_LIMITS_H

#include <sys/resource.h>

#include "options.h"
#include "rights.h"

/* As Firecracker's jailer has it. */
#define DEFAULT_NO_FILE 2048
/* The standard files, and those that Node opens before its first line. */
#define LEAST_NO_FILE 64

struct limits {
	bool has_fsize;
	rlim_t fsize;
	rlim_t no_file;
};

/* fs.nr_open: more is EPERM for everybody. */
static rlim_t most_files(void)
{
	unsigned long long most = 1048576;
	FILE *file = fopen("/proc/sys/fs/nr_open", "re");

	if (file) {
		if (fscanf(file, "%llu", &most) != 1)
			most = 1048576;
		fclose(file);
	}
	return most;
}

static rlim_t limit_here(int resource)
{
	struct rlimit limit;

	return getrlimit(resource, &limit) == 0 ? limit.rlim_max : RLIM_INFINITY;
}

static void check_limits(const struct options *options, struct limits *limits)
{
	rlim_t files = limit_here(RLIMIT_NOFILE);

	*limits = (struct limits){.no_file = files < DEFAULT_NO_FILE ? files : DEFAULT_NO_FILE};
	for (int at = 0; at < options->limits.count; at++) {
		const char *word = options->limits.values[at];
		bool is_fsize = strncmp(word, "fsize=", 6) == 0;
		bool is_no_file = strncmp(word, "no-file=", 8) == 0;
		unsigned long long number;

		if (!is_fsize && !is_no_file)
			fail("--resource-limit %s: fsize=BYTES or no-file=COUNT", word);
		if (!read_number(strchr(word, '=') + 1, RLIM_INFINITY - 1, &number))
			fail("--resource-limit %s: a number from 0 to %llu", word, (unsigned long long)RLIM_INFINITY - 1);
		rlim_t here = limit_here(is_fsize ? RLIMIT_FSIZE : RLIMIT_NOFILE);

		if (number > here && !has_capability(CAP_SYS_RESOURCE))
			fail("--resource-limit %s: %llu at most, the limit of this process", word, (unsigned long long)here);
		if (is_no_file && (number < LEAST_NO_FILE || number > most_files()))
			fail("--resource-limit %s: from %d to %llu", word, LEAST_NO_FILE, (unsigned long long)most_files());
		if (is_fsize) {
			limits->has_fsize = true;
			limits->fsize = number;
		} else {
			limits->no_file = number;
		}
	}
}

static void set_limits(const struct limits *limits)
{
	struct rlimit files = {limits->no_file, limits->no_file};
	struct rlimit fsize = {limits->fsize, limits->fsize};

	if (setrlimit(RLIMIT_NOFILE, &files) < 0)
		fail("no-file=%llu: %s", (unsigned long long)limits->no_file, strerror(errno));
	if (limits->has_fsize && setrlimit(RLIMIT_FSIZE, &fsize) < 0)
		fail("fsize=%llu: %s", (unsigned long long)limits->fsize, strerror(errno));
}

#endif
