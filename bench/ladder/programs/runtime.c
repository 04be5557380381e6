#include <linux/mman.h>
#include <linux/time.h>

#include "runtime.h"

#define STDOUT 1

static char pending[8192];
static size_t pending_length;

int main(int argc, char **argv);

__attribute__((used)) static void begin(long *stack)
{
	int argc = (int)stack[0];
	char **argv = (char **)(stack + 1);

	end(main(argc, argv));
}

/* The kernel enters with argc at the top of the stack (System V ABI, AMD64 supplement, 3.4.1). */
__asm__(".globl _start\n_start:\n\txor %ebp, %ebp\n\tmov %rsp, %rdi\n\tand $-16, %rsp\n\tcall begin\n\thlt\n");

/* gcc may call these for what is written as loops and assignments. */
void *memset(void *to, int byte, size_t length)
{
	for (size_t i = 0; i < length; i++)
		((volatile char *)to)[i] = (char)byte;
	return to;
}

void *memcpy(void *to, const void *from, size_t length)
{
	for (size_t i = 0; i < length; i++)
		((volatile char *)to)[i] = ((const char *)from)[i];
	return to;
}

void flush(void)
{
	for (size_t done = 0; done < pending_length;) {
		long n = CALL(__NR_write, STDOUT, pending + done, pending_length - done);

		if (n <= 0)
			break;
		done += (size_t)n;
	}
	pending_length = 0;
}

void print(const char *text)
{
	for (; *text; text++) {
		if (pending_length == sizeof pending)
			flush();
		pending[pending_length++] = *text;
	}
}

void print_number(int64_t value)
{
	char digits[24];
	char *at = digits + sizeof digits - 1;
	uint64_t rest = value < 0 ? -(uint64_t)value : (uint64_t)value;

	*at = 0;
	do {
		*--at = (char)('0' + rest % 10);
		rest /= 10;
	} while (rest > 0);
	if (value < 0)
		*--at = '-';
	print(at);
}

void (*at_end)(void);

void end(int status)
{
	flush();
	if (at_end)
		at_end();
	for (;;)
		CALL(__NR_exit_group, status);
}

void die(const char *what, long error)
{
	print("probe: ");
	print(what);
	print(": errno ");
	print_number(error < 0 ? -error : error);
	print("\n");
	end(1);
}

int is_equal(const char *a, const char *b)
{
	while (*a && *a == *b)
		a++, b++;
	return *a == *b;
}

int64_t parse_number(const char *text)
{
	int64_t value = 0;

	for (; *text >= '0' && *text <= '9'; text++)
		value = value * 10 + (*text - '0');
	return value;
}

uint64_t now_ns(void)
{
	struct { int64_t seconds, nanoseconds; } t;

	CALL(__NR_clock_gettime, CLOCK_MONOTONIC, &t);
	return (uint64_t)t.seconds * 1000000000ULL + (uint64_t)t.nanoseconds;
}

void rest_ms(int64_t milliseconds)
{
	struct { int64_t seconds, nanoseconds; } t = { milliseconds / 1000, milliseconds % 1000 * 1000000 };

	CALL(__NR_nanosleep, &t, 0);
}

void *allocate(size_t bytes)
{
	long at = CALL(__NR_mmap, 0, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (at < 0 && at > -4096)
		die("mmap", at);
	return (void *)at;
}

int wait_for(long pid)
{
	int status = -1;
	long result = CALL(__NR_wait4, pid, &status, 0, 0);

	if (result < 0)
		die("wait4", result);
	return status;
}
