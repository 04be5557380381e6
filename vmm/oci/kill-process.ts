/** Sends SIGKILL to a process, or to the group of that number where it is negative; one that has ended is as good. */
export function killProcess(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // It has ended by itself.
  }
}
