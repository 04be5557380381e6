// Whether this process has been sealed (vmm/jail): then it opens no file, connects to nobody and signals no other process.
export const processSeal: {
  isSealed: boolean;
  /** Makes the filter of system calls for a thread that is to run vCPUs and begins later; undefined if none does. */
  vcpuFilter?: () => Uint8Array;
  /** A connected socket of a program that listens for the guest at that port; undefined if there is none. */
  connection?: (port: number) => number | undefined;
} = { isSealed: false };
