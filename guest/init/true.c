/* The smallest program: it ends with status 0. What is left of a guest's time is not its own. */
#include "syscall.h"

__attribute__((used)) static void start(void)
{
	call1(exit_group, 0);
}

__asm__(".globl _start\n_start:\n\tcall start\n\thlt\n");
