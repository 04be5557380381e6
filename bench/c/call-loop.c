/* The cost of one call through a pointer in C, the floor of what a binding can reach.
 *   call-loop LIBRARY
 * Reads lines "add|ends|region_pages COUNT" and answers each with nanoseconds a call.
 */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

struct region {
	uint32_t slot, flags;
	uint64_t gpa, size, hva;
};

static double now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

int main(int argc, char **argv)
{
	void *library = argc > 1 ? dlopen(argv[1], RTLD_NOW) : NULL;

	if (!library) {
		fprintf(stderr, "call-loop: %s\n", argc > 1 ? dlerror() : "usage: call-loop LIBRARY");
		return 1;
	}
	int (*volatile add)(int, int) = (int (*)(int, int))dlsym(library, "add");
	uint32_t (*volatile ends)(const uint8_t *, size_t) = (uint32_t (*)(const uint8_t *, size_t))dlsym(library, "ends");
	uint32_t (*volatile region_pages)(const struct region *) =
		(uint32_t (*)(const struct region *))dlsym(library, "region_pages");
	uint8_t bytes[64] = { 1 };
	char name[32];
	long count;
	volatile uint32_t sink = 0;

	while (scanf("%31s %ld", name, &count) == 2) {
		double started = now_ns();

		if (strcmp(name, "add") == 0)
			for (long i = 0; i < count; i++)
				sink += (uint32_t)add((int)i, 1);
		else if (strcmp(name, "ends") == 0)
			for (long i = 0; i < count; i++)
				sink += ends(bytes, sizeof(bytes));
		else
			for (long i = 0; i < count; i++) {
				/* A struct is filled for each call, as a binding has to. */
				struct region region = { .slot = (uint32_t)i & 7, .size = 1 << 20 };

				sink += region_pages(&region);
			}
		printf("%.3f\n", (now_ns() - started) / (double)count);
		fflush(stdout);
	}
	return 0;
}
