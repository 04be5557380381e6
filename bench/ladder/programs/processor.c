/* Work that needs no kernel: integers, and memory further away than the caches near the processor. */
#include <asm/mman.h>

#include "probe.h"
#include "runtime.h"

/* More than most second-level caches, little enough for a guest of 128 MiB. */
#define CHASE_BYTES (8UL << 20)
#define LINE 64UL
#define STEPS_PER_OPERATION 1000

static volatile uint64_t sink;
static void **chase;

/* A xorshift generator: each step waits for the last. */
static void integers(long n)
{
	uint64_t state = 88172645463325252ULL;

	for (long i = 0; i < n * STEPS_PER_OPERATION; i++) {
		state ^= state << 13;
		state ^= state >> 7;
		state ^= state << 17;
	}
	sink = state;
}

void integer_work(uint64_t budget_ns)
{
	measure("integer_1000_steps_ns", integers, budget_ns);
}

static void follow(long n)
{
	void **at = chase;

	for (long i = 0; i < n * STEPS_PER_OPERATION; i++)
		at = *at;
	sink = (uint64_t)at;
}

void memory_work(uint64_t budget_ns)
{
	const size_t count = CHASE_BYTES / LINE;
	uint32_t *order = allocate(count * sizeof *order);
	char *block = allocate(CHASE_BYTES);
	uint64_t state = 1;

	/* Whether there is a huge page at hand is luck, and would be most of the difference between two runs. */
	CALL(__NR_madvise, block, CHASE_BYTES, MADV_NOHUGEPAGE);
	for (size_t i = 0; i < count; i++)
		order[i] = (uint32_t)i;
	/* One cycle through all cache lines in an order that no prefetcher guesses. */
	for (size_t i = count - 1; i > 0; i--) {
		state = state * 6364136223846793005ULL + 1442695040888963407ULL;
		size_t j = (size_t)((state >> 33) % i);
		uint32_t swapped = order[i];

		order[i] = order[j];
		order[j] = swapped;
	}
	for (size_t i = 0; i < count; i++)
		*(void **)(block + LINE * order[i]) = block + LINE * order[(i + 1) % count];
	chase = (void **)block;
	measure("memory_1000_loads_ns", follow, budget_ns);
	CALL(__NR_munmap, block, CHASE_BYTES);
	CALL(__NR_munmap, order, count * sizeof *order);
}
