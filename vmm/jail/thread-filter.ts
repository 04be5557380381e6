// A filter of system calls for the calling thread: seccomp(2). What begins with it has it, too.
import { systemCallError } from "../sys/errno.js";
import { mmapAnonymous, munmap, viewMemory } from "../sys/memory.js";
import { rawCall } from "../sys/raw-call.js";

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
/** With its NUL. */
const NAME_BYTES = 16;

/** A program in memory where seccomp finds it, and a name for those that have it. */
export interface PlacedFilter {
  /** Of struct sock_fprog. */
  readonly address: number;
  /** Ends with a NUL; undefined: they keep theirs. */
  readonly nameAddress: number | undefined;
  remove(): void;
}

export function placeFilter(program: Uint8Array, name?: string): PlacedFilter {
  const length = NAME_BYTES + SIZEOF_SOCK_FPROG + program.length;
  const start = mmapAnonymous(length);
  const address = start + NAME_BYTES;
  // SAFETY: all of the mapping, which nobody uses after `remove`.
  const memory = viewMemory(start, length);
  Buffer.from(memory, 0, NAME_BYTES - 1).write(name ?? "", "latin1");
  const header = new DataView(memory, NAME_BYTES);
  header.setUint16(0, program.length / SIZEOF_SOCK_FILTER, true);
  header.setBigUint64(8, BigInt(address + SIZEOF_SOCK_FPROG), true);
  new Uint8Array(memory, NAME_BYTES + SIZEOF_SOCK_FPROG).set(program);
  return {
    address,
    nameAddress: name === undefined ? undefined : start,
    remove: () => {
      munmap(start, length);
    },
  };
}

export interface NamedCall {
  readonly what: string;
  readonly number: number;
  readonly arguments: readonly number[];
}

/** The system calls that name a thread and give it the filter. */
export function filterCalls({ address, nameAddress }: PlacedFilter): NamedCall[] {
  const filter = [SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW, address];
  return [
    ...(nameAddress === undefined
      ? []
      : [{ what: "prctl(PR_SET_NAME)", number: SYS_PRCTL, arguments: [PR_SET_NAME, nameAddress] }]),
    { what: "seccomp", number: SYS_SECCOMP, arguments: filter },
  ];
}

/** The calling thread has that filter, besides those that it has, from now on. Throws SystemCallError. */
export function filterThisThread(program: Uint8Array, name: string): void {
  const placed = placeFilter(program, name);
  for (const { what, number, arguments: given } of filterCalls(placed)) {
    // SAFETY: memory that is ours, read during the call only.
    const result = rawCall(number, ...given);
    if (result < 0) throw systemCallError(what, -result);
  }
  placed.remove();
}
