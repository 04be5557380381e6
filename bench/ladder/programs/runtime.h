/* The little that the probe needs of a C library: system calls and output. Without a library it is
 * some 20 KiB with few pages to touch; what is measured then is the rung, not the loading of a program. */
#ifndef RUNTIME_H
#define RUNTIME_H

#include "../../../guest/init/syscall.h"

#include <stddef.h>
#include <stdint.h>

#define CALL(number, ...) CALL_(number, ##__VA_ARGS__, 0, 0, 0, 0, 0, 0)
#define CALL_(number, a, b, c, d, e, f, ...) \
	syscall6(number, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))

/* Output is collected until flush(): a write may be expensive. */
void print(const char *text);
void print_number(int64_t value);
void flush(void);
/* Prints what failed and the errno (positive or negative), and ends. */
void die(const char *what, long error) __attribute__((noreturn));
void end(int status) __attribute__((noreturn));
/* Called by end(), if it is set. */
extern void (*at_end)(void);

int is_equal(const char *a, const char *b);
int64_t parse_number(const char *text);
uint64_t now_ns(void);
void rest_ms(int64_t milliseconds);
/* Zeroed pages. */
void *allocate(size_t bytes);
void *memcpy(void *to, const void *from, size_t length);
/* Waits for one child; its status as wait4(2) gives it. */
int wait_for(long pid);

#endif
