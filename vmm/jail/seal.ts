// The seal: what a monitor does between the last thing that it opens and the guest's first instruction. From then on the process has no
// capability, reaches no path (Landlock, where the kernel has it) and each of its threads makes no system call but those of its kind
// (allowed.ts). Nothing takes it back.
import { openSync, readSync } from "node:fs";
import { HostError } from "../errors.js";
import { statFieldsOf } from "../host/stat-line.js";
import { closeDescriptor } from "../sys/descriptors.js";
import { processSeal } from "../sys/process-seal.js";
import { rawCall } from "../sys/raw-call.js";
import { Attendant } from "./attendant.js";
import { allowedCalls, writesTo, type Phase } from "./allowed.js";
import { ThreadCalls } from "./every-thread.js";
import { compileFilter, type Rule } from "./filter.js";
import { landlockRuleset, SYS_LANDLOCK_RESTRICT_SELF } from "./landlock.js";
import { CLONE_NEWNET, emptyNetwork, hasOwnNamespaces, leaveRoot, SYS_SETNS } from "./leave-host.js";
import type { Needs } from "./needs.js";
import { endAtRefusal, type RefusalLog } from "./refusal.js";
import { Scratch } from "./scratch.js";
import { filterCalls, VCPU_THREAD_NAME, type NamedCall } from "./thread-filter.js";
import { threadsByKind, type ThreadKind } from "./threads.js";

const SYS_CAPSET = 126;
const SYS_PRCTL = 157;
const PR_CAPBSET_READ = 23;
const PR_CAPBSET_DROP = 24;
const PR_SET_NO_NEW_PRIVS = 38;
const CAPABILITY_BYTES = 32;
/** CAP_LAST_CAP can grow so far: a capability is a bit of 64. */
const CAPABILITIES = 64;
const LINUX_CAPABILITY_VERSION_3 = 0x2008_0522;

/** It may be refused. */
const BOUNDING = "prctl(PR_CAPBSET_DROP)";

const OTHERS: readonly ThreadKind[] = ["node", "pool", "vcpu", "any"];
/** Node's own keep the process's name. */
const NAMES: Readonly<Partial<Record<ThreadKind, string>>> = { vcpu: VCPU_THREAD_NAME, pool: "pool" };

export interface SealOptions {
  /** What this process needs beside allowedCalls. */
  readonly more?: readonly Rule[] | undefined;
  /** To which connections by TCP go, for a process that may make them; where the kernel has Landlock for that. */
  readonly tcpPort?: number | undefined;
  /** Where a refusal stands, too. */
  readonly log?: RefusalLog | undefined;
  /** A network namespace, as a descriptor, that all threads enter; it is closed. */
  readonly network?: number | undefined;
}

/** Throws SystemCallError or HostError; a process that has got so far and no further is not to run a guest. */
export function sealProcess(phase: Phase, needs: Needs, options: SealOptions = {}): void {
  if (process.arch !== "x64") throw new HostError("The jail knows the system calls of x86-64 alone");
  const { log } = options;
  const compile = (kind: ThreadKind): Uint8Array =>
    compileFilter([
      ...allowedCalls(kind, phase, process.pid, needs),
      ...(kind === "main" ? (options.more ?? []) : []),
      ...(log === undefined ? [] : [writesTo(log.fd)]),
    ]);
  // Without the host's root, there is no /proc to look at.
  const stat = openSync("/proc/self/stat", "r");
  const before = threadCount(stat);
  const threads = threadsByKind();
  endAtRefusal(log);
  const scratch = new Scratch();
  const ruleset = landlockRuleset(options.tcpPort);
  const isApart = hasOwnNamespaces();
  const network = isApart ? emptyNetwork(Attendant.own) : options.network;
  const rights = rightsToDrop(scratch, ruleset, network);
  const calls = new ThreadCalls(scratch);
  const done: { readonly list: readonly NamedCall[]; readonly failures: () => number[] }[] = [];
  const listOf = (kind: ThreadKind): readonly NamedCall[] => [
    ...rights,
    ...filterCalls(scratch, compile(kind), NAMES[kind]),
  ];
  const begin = (kind: ThreadKind, list: readonly NamedCall[]): void => {
    done.push({ list, failures: calls.begin(threads[kind], list) });
  };
  // Other processors do that while this thread goes on.
  for (const kind of OTHERS) if (threads[kind].length > 0) begin(kind, listOf(kind));
  if (isApart) leaveRoot(scratch);
  const own = listOf("main");
  calls.wait();
  // It has them do it, and could no more.
  begin("main", own);
  calls.wait();
  for (const { list, failures } of done) {
    const failed = failures();
    const refused = list.find(({ what }, at) => what !== BOUNDING && failed[at] !== 0);
    if (refused !== undefined) throw new HostError(`The jail cannot be closed: ${refused.what} is refused`);
  }
  if (threadCount(stat) > before) throw new HostError("The jail cannot be closed: a thread has begun meanwhile");
  calls.end();
  scratch.remove();
  for (const fd of [ruleset, network, stat]) if (fd !== undefined) closeDescriptor(fd);
  if (phase === "running") processSeal.vcpuFilter = () => compile("vcpu");
  processSeal.isSealed = true;
}

/** What each thread gives up. */
function rightsToDrop(
  scratch: Scratch,
  ruleset: number | undefined,
  network: number | undefined,
): readonly NamedCall[] {
  // struct __user_cap_header_struct, and two of __user_cap_data_struct, all of them empty.
  const header = scratch.room(CAPABILITY_BYTES);
  new DataView(scratch.memory).setUint32(header.at, LINUX_CAPABILITY_VERSION_3, true);
  return [
    // Before the capabilities: it takes one. A user has none, and gets none either. Of a process that the launcher has started, all are gone.
    ...boundingSet().map((capability) => ({
      what: BOUNDING,
      number: SYS_PRCTL,
      arguments: [PR_CAPBSET_DROP, capability],
    })),
    ...(network === undefined ? [] : [{ what: "setns", number: SYS_SETNS, arguments: [network, CLONE_NEWNET] }]),
    { what: "prctl(PR_SET_NO_NEW_PRIVS)", number: SYS_PRCTL, arguments: [PR_SET_NO_NEW_PRIVS, 1] },
    ...(ruleset === undefined
      ? []
      : [{ what: "landlock_restrict_self", number: SYS_LANDLOCK_RESTRICT_SELF, arguments: [ruleset, 0] }]),
    { what: "capset", number: SYS_CAPSET, arguments: [header.address, header.address + 8] },
  ];
}

function boundingSet(): number[] {
  const found: number[] = [];
  for (let capability = 0; capability < CAPABILITIES; capability++) {
    const isIn = rawCall(SYS_PRCTL, PR_CAPBSET_READ, capability);
    // CAP_LAST_CAP is behind.
    if (isIn < 0) break;
    if (isIn > 0) found.push(capability);
  }
  return found;
}

/** `stat`: /proc/self/stat, open; proc(5), num_threads. */
function threadCount(stat: number): number {
  const text = Buffer.alloc(1024);
  const length = readSync(stat, text, 0, text.length, 0);
  const NUM_THREADS = 17;
  return Number(statFieldsOf(text.toString("latin1", 0, length))[NUM_THREADS]);
}
