// Cycles of fork, exec and pipe: where a KVM that emulates kernel code has most to do.

/** For the guest's shell. */
export function forkExecScript(cycles: number): string {
  return `i=0; while [ $i -lt ${String(cycles)} ]; do echo line $i | cat; i=$((i+1)); done`;
}

export function forkExecOutput(cycles: number): string {
  return Array.from({ length: cycles }, (_, i) => `line ${String(i)}\n`).join("");
}
