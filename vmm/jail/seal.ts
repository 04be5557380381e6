// The seal: what a monitor does between the last thing that it opens and the guest's first instruction. From then on the process has no
// capability, reaches no path (Landlock, where the kernel has it) and makes no system call but those of allowed.ts. Nothing
// takes it back.
import { HostError } from "../errors.js";
import { closeDescriptor } from "../sys/descriptors.js";
import { systemCallError } from "../sys/errno.js";
import { mmapAnonymous, munmap, viewMemory } from "../sys/memory.js";
import { processSeal } from "../sys/process-seal.js";
import { rawCall } from "../sys/raw-call.js";
import { allowedCalls, type Phase } from "./allowed.js";
import { callOnEveryThread, threadsNow } from "./every-thread.js";
import { compileFilter } from "./filter.js";
import { emptyRuleset, SYS_LANDLOCK_RESTRICT_SELF } from "./landlock.js";
import { CLONE_NEWNET, emptyNetwork, hasOwnNamespaces, leaveRoot, SYS_SETNS } from "./leave-host.js";
import type { Needs } from "./needs.js";
import { endAtRefusal } from "./refusal.js";

const SYS_CAPSET = 126;
const SYS_PRCTL = 157;
const SYS_SECCOMP = 317;
const PR_CAPBSET_READ = 23;
const PR_CAPBSET_DROP = 24;
const PR_SET_NO_NEW_PRIVS = 38;
/** CAP_LAST_CAP can grow so far: a capability is a bit of 64. */
const CAPABILITIES = 64;
const LINUX_CAPABILITY_VERSION_3 = 0x2008_0522;

const SECCOMP_SET_MODE_FILTER = 1;
/** For all threads. */
const SECCOMP_FILTER_FLAG_TSYNC = 1;
/** Without the mitigation that some kernels add to a filter, which slows down all that a process does. */
const SECCOMP_FILTER_FLAG_SPEC_ALLOW = 4;
const SIZEOF_SOCK_FPROG = 16;

/** Throws SystemCallError or HostError; a process that has got so far and no further is not to run a guest. */
export function sealProcess(phase: Phase, needs: Needs): void {
  if (process.arch !== "x64") throw new HostError("The jail knows the system calls of x86-64 alone");
  const program = compileFilter(allowedCalls(phase, process.pid, needs));
  endAtRefusal();
  const ruleset = emptyRuleset();
  // Without the host's root, there is no /proc to look them up.
  const threads = threadsNow();
  const network = hasOwnNamespaces() ? emptyNetwork() : undefined;
  if (network !== undefined) leaveRoot();
  dropRights(ruleset, network, threads);
  for (const fd of [ruleset, network]) if (fd !== undefined) closeDescriptor(fd);
  installFilter(program);
  processSeal.isSealed = true;
}

function dropRights(ruleset: number | undefined, network: number | undefined, threads: readonly number[]): void {
  // struct __user_cap_header_struct, and two of __user_cap_data_struct, all of them empty.
  const address = mmapAnonymous(64);
  new Uint32Array(viewMemory(address, 64))[0] = LINUX_CAPABILITY_VERSION_3;
  const needed = [
    ...(network === undefined ? [] : [{ what: "setns", number: SYS_SETNS, arguments: [network, CLONE_NEWNET] }]),
    { what: "prctl(PR_SET_NO_NEW_PRIVS)", number: SYS_PRCTL, arguments: [PR_SET_NO_NEW_PRIVS, 1] },
    ...(ruleset === undefined
      ? []
      : [{ what: "landlock_restrict_self", number: SYS_LANDLOCK_RESTRICT_SELF, arguments: [ruleset, 0] }]),
    { what: "capset", number: SYS_CAPSET, arguments: [address, address + 8] },
  ];
  // Before the capabilities: it takes one. A user has none, and gets none either. Of a process that the launcher has started, all are gone.
  const bounding = Array.from({ length: CAPABILITIES }, (_, capability) => capability)
    .filter((capability) => rawCall(SYS_PRCTL, PR_CAPBSET_READ, capability) > 0)
    .map((capability) => ({ number: SYS_PRCTL, arguments: [PR_CAPBSET_DROP, capability] }));
  const failures = callOnEveryThread([...bounding, ...needed], threads).slice(bounding.length);
  munmap(address, 64);
  for (const [at, { what }] of needed.entries()) {
    if (failures[at] !== 0) throw new HostError(`The jail cannot be closed: ${what} is refused`);
  }
}

function installFilter(program: Uint8Array): void {
  const length = SIZEOF_SOCK_FPROG + program.length;
  const address = mmapAnonymous(length);
  const memory = viewMemory(address, length);
  const header = new DataView(memory);
  header.setUint16(0, program.length / 8, true);
  header.setBigUint64(8, BigInt(address + SIZEOF_SOCK_FPROG), true);
  new Uint8Array(memory).set(program, SIZEOF_SOCK_FPROG);
  const flags = SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_SPEC_ALLOW;
  // SAFETY: struct sock_fprog and what it points to, read during the call only.
  const result = rawCall(SYS_SECCOMP, SECCOMP_SET_MODE_FILTER, flags, address);
  if (result < 0) throw systemCallError("seccomp", -result);
  if (result > 0) throw new HostError(`The jail cannot be closed: thread ${String(result)} has a filter of its own`);
  munmap(address, length);
}
