/* A guest that takes what it can: a static program without a C library, made of this file and bench/ladder/programs/runtime.c.
 *   bomb memory    children touch all memory that there is, until the kernel ends them, again and again
 *   bomb forks     processes that start processes
 *   bomb idle      sleeps
 */
#include <sys/mman.h>

#include "../ladder/programs/runtime.h"

#define SLEEP_MS 3600000
#define CHUNK (1UL << 20)
#define PAGE 4096UL

static _Noreturn void memory(void)
{
	for (;;) {
		long child = CALL(__NR_fork);

		if (child < 0)
			die("fork", child);
		if (child == 0) {
			for (;;) {
				long at = CALL(__NR_mmap, 0, CHUNK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

				for (unsigned long page = 0; at > 0 && page < CHUNK; page += PAGE)
					*(volatile char *)(at + (long)page) = 1;
			}
		}
		wait_for(child);
	}
}

static _Noreturn void forks(void)
{
	/* Where there is no room for another, each goes on to try. */
	for (;;)
		CALL(__NR_fork);
}

int main(int argc, char **argv)
{
	if (argc > 1 && is_equal(argv[1], "memory"))
		memory();
	if (argc > 1 && is_equal(argv[1], "forks"))
		forks();
	for (;;)
		rest_ms(SLEEP_MS);
}
