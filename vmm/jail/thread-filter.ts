// A filter of system calls for the calling thread: seccomp(2). What begins with it has it, too.
import { systemCallError } from "../sys/errno.js";
import { rawCall } from "../sys/raw-call.js";
import { Scratch } from "./scratch.js";

const SYS_PRCTL = 157;
const SYS_SECCOMP = 317;
const PR_SET_NAME = 15;
export const SECCOMP_SET_MODE_FILTER = 1;
/** Without the mitigation that some kernels add to a filter, which slows down all that a process does. */
export const SECCOMP_FILTER_FLAG_SPEC_ALLOW = 4;
const SIZEOF_SOCK_FPROG = 16;
const SIZEOF_SOCK_FILTER = 8;
/** Of threads that run vCPUs. */
export const VCPU_THREAD_NAME = "vcpu";

export interface NamedCall {
  readonly what: string;
  readonly number: number;
  readonly arguments: readonly number[];
}

/** The system calls that name a thread, if it is to have another name, and give it the filter. Names have 15 bytes at most. */
export function filterCalls(scratch: Scratch, program: Uint8Array, name?: string): NamedCall[] {
  const { address, at } = scratch.room(SIZEOF_SOCK_FPROG);
  const header = new DataView(scratch.memory, at);
  header.setUint16(0, program.length / SIZEOF_SOCK_FILTER, true);
  header.setBigUint64(8, BigInt(scratch.place(program)), true);
  return [
    ...(name === undefined
      ? []
      : [{ what: "prctl(PR_SET_NAME)", number: SYS_PRCTL, arguments: [PR_SET_NAME, scratch.text(name)] }]),
    {
      what: "seccomp",
      number: SYS_SECCOMP,
      arguments: [SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW, address],
    },
  ];
}

/** The calling thread has that filter, besides those that it has, from now on. Throws SystemCallError. */
export function filterThisThread(program: Uint8Array, name: string): void {
  const scratch = new Scratch();
  for (const { what, number, arguments: given } of filterCalls(scratch, program, name)) {
    // SAFETY: memory that is ours, read during the call only.
    const result = rawCall(number, ...given);
    if (result < 0) throw systemCallError(what, -result);
  }
  scratch.remove();
}
