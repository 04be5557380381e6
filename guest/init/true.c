/* The smallest programs, true and (with STATUS 1) false. What is left of a guest's time is not their own. */
#include "syscall.h"

#ifndef STATUS
#define STATUS 0
#endif

__attribute__((used)) static void start(void)
{
	call1(exit_group, STATUS);
}

__asm__(".globl _start\n_start:\n\tcall start\n\thlt\n");
