/* The few system calls that init makes, without a C library: a static binary of a few
 * kilobytes has almost nothing to load, which is what makes a small guest start fast.
 * Linux x86-64 calling convention, arch/x86/entry/entry_64.S. */
#ifndef VMLET_SYSCALL_H
#define VMLET_SYSCALL_H

#include <asm/unistd.h>

typedef unsigned long size_t;

static inline long syscall6(long number, long a, long b, long c, long d, long e, long f)
{
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = f;
	long result;

	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return result;
}

#define call6(n, a, b, c, d, e, f) \
	syscall6(__NR_##n, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))
#define call5(n, a, b, c, d, e) call6(n, a, b, c, d, e, 0)
#define call4(n, a, b, c, d) call5(n, a, b, c, d, 0)
#define call3(n, a, b, c) call4(n, a, b, c, 0)
#define call2(n, a, b) call3(n, a, b, 0)
#define call1(n, a) call2(n, a, 0)
#define call0(n) call1(n, 0)

#endif
