// What `vmlet` exits with. A guest that powers off decides itself, 0 to 255; docs/command-line.md has
// the table. 64 to 78 are those of <sysexits.h>.

export const EXIT_USAGE = 64;
export const EXIT_CONFIG = 65;
export const EXIT_HOST = 69;
export const EXIT_INTERNAL = 70;
/** `vmlet doctor`: no /dev/kvm can be used, the lab can. EX_OSFILE. */
export const EXIT_LAB_ONLY = 72;
export const EXIT_CANNOT_WRITE = 73;
/** Standard output does not take what the guest, or a command, has written. EX_IOERR. */
export const EXIT_OUTPUT_LOST = 74;
export const EXIT_REBOOT = 100;
export const EXIT_PANIC = 101;
export const EXIT_TRIPLE_FAULT = 102;
/** The user has left with Ctrl-A x. */
export const EXIT_LEFT = 103;
/** The guest did something that the monitor cannot answer. */
export const EXIT_GUEST = 104;
/** Every vCPU has halted for ever, without an interrupt controller that could wake it. */
export const EXIT_HALTED = 105;
export const EXIT_SIGNAL_BASE = 128;
/** The monitor has made a system call that the jail refuses. Firecracker's number for it. */
export const EXIT_JAIL = 148;
