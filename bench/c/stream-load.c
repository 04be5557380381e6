/* Bytes through a channel between guest and host: a static program without a C library, made of this file and
 * bench/ladder/programs/runtime.c, and run on both sides.
 *   stream-load out|in|both PATH MIB
 * Writes MIB of bytes to PATH, reads as many from it and compares each with what it has to be; "-" for PATH: standard output
 * and input. "metric value" goes to standard error, by the monotonic clock: from the first byte to the last.
 */
#include <asm/fcntl.h>

#include "../ladder/programs/runtime.h"

#define MIB_BYTES (1UL << 20)
#define CHUNK_WORDS 8192UL
#define CHUNK_BYTES (CHUNK_WORDS * 8)

static uint64_t chunk[CHUNK_WORDS];
static uint64_t word;

static uint64_t next_word(void)
{
	word ^= word << 13;
	word ^= word >> 7;
	word ^= word << 17;
	return word;
}

static void report(const char *metric, uint64_t bytes, uint64_t ns)
{
	char line[96];
	unsigned long at = 0;
	char digits[24];
	int n = 0;
	uint64_t value = bytes * 1000000000UL / (ns == 0 ? 1 : ns) / 1024;

	while (*metric)
		line[at++] = *metric++;
	line[at++] = ' ';
	do
		digits[n++] = (char)('0' + value % 10);
	while ((value /= 10) != 0);
	while (n > 0)
		line[at++] = digits[--n];
	line[at++] = '\n';
	CALL(__NR_write, 2, line, at);
}

static void check(const char *what, long result)
{
	if (result < 0)
		die(what, result);
}

static void send(long fd, uint64_t bytes)
{
	uint64_t begin = now_ns();

	word = 88172645463325252UL;
	for (uint64_t left = bytes; left > 0; left -= CHUNK_BYTES) {
		for (unsigned long i = 0; i < CHUNK_WORDS; i++)
			chunk[i] = next_word();
		for (unsigned long at = 0; at < CHUNK_BYTES;) {
			long n = CALL(__NR_write, fd, (char *)chunk + at, CHUNK_BYTES - at);

			check("write", n);
			at += (unsigned long)n;
		}
	}
	report("out_kib_s", bytes, now_ns() - begin);
}

static void receive(long fd, uint64_t bytes)
{
	uint64_t begin = 0;

	word = 88172645463325252UL;
	for (uint64_t left = bytes; left > 0; left -= CHUNK_BYTES) {
		for (unsigned long at = 0; at < CHUNK_BYTES;) {
			long n = CALL(__NR_read, fd, (char *)chunk + at, CHUNK_BYTES - at);

			check("read", n);
			if (n == 0)
				die("the end has come early", 0);
			if (begin == 0)
				begin = now_ns();
			at += (unsigned long)n;
		}
		for (unsigned long i = 0; i < CHUNK_WORDS; i++)
			if (chunk[i] != next_word())
				die("a word is not what was sent", 0);
	}
	report("in_kib_s", bytes, now_ns() - begin);
}

int main(int argc, char **argv)
{
	if (argc != 4)
		die("stream-load out|in|both PATH MIB", 0);
	int is_standard = is_equal(argv[2], "-");
	uint64_t bytes = (uint64_t)parse_number(argv[3]) * MIB_BYTES;
	long fd = is_standard ? -1 : CALL(__NR_openat, -100, argv[2], O_RDWR, 0);

	if (!is_standard)
		check("open", fd);
	if (!is_equal(argv[1], "in"))
		send(is_standard ? 1 : fd, bytes);
	if (!is_equal(argv[1], "out"))
		receive(is_standard ? 0 : fd, bytes);
	return 0;
}
