/* guest/init/execute.h as a program of this host: runs its arguments as the guest's init would run a command. */
#include "../../guest/init/execute.h"

static char *variables[] = { "PATH=/usr/bin:/bin", "HOME=/", 0 };

__attribute__((used)) static void start(long *stack)
{
	environment = variables;
	/* argc, argv[0], and what is to be run. */
	call1(exit_group, execute((char **)(stack + 2)));
}

__asm__(".globl _start\n_start:\n\tmov %rsp, %rdi\n\tand $-16, %rsp\n\tcall start\n\thlt\n");
