// Exit codes, as Firecracker's FcExitCode has them.

export const EXIT_OK = 0;
export const EXIT_GENERIC = 1;
export const EXIT_BAD_CONFIGURATION = 152;
export const EXIT_ARGUMENTS = 153;

const BY_SIGNAL: Readonly<Record<number, number>> = {
  // SIGHUP, SIGILL, SIGBUS, SIGSEGV, SIGXCPU, SIGSYS
  1: 156,
  4: 157,
  7: 149,
  11: 150,
  24: 154,
  31: 148,
};

/** Undefined for a signal that ends the process as it ends any. */
export function ofSignal(signal: number): number | undefined {
  return BY_SIGNAL[signal];
}
