// The threads of this process by kind. Node names none of them, but they begin in an order: its own and V8's before any code of ours,
// libuv's pool, all at once, with the first work for it, and those that run vCPUs when a VM wants them.
import { readdirSync, readFileSync, stat } from "node:fs";
import { statFieldsOf } from "../host/stat-line.js";

/**
 * - `main`: the event loop, which has the devices, and for a while a vCPU.
 * - `vcpu`: what runs a vCPU.
 * - `pool`: libuv's threads, which read and write files.
 * - `node`: V8's compilers and collectors, and those of Node that wait for timers and signals.
 * - `any`: one of the last three, in a process that had work for the pool before anybody looked.
 */
export type ThreadKind = "main" | "vcpu" | "pool" | "node" | "any";

let early: Readonly<Record<"node" | "pool", readonly number[]>> | undefined;

/**
 * Before anything of this process has had work for libuv's pool, and before other threads begin: later, nothing is learnt. `poolSize`: of that pool,
 * unless the user has said so; each thread takes a filter at the seal, while the start waits.
 */
export function noteThreads(poolSize?: number): void {
  if (early !== undefined) return;
  if (poolSize !== undefined) process.env["UV_THREADPOOL_SIZE"] ??= String(poolSize);
  const node = threadsNow();
  // Any work will do.
  stat("/", () => undefined);
  const pool = threadsNow().filter((thread) => !node.includes(thread));
  // As in a checkout, whose modules are read by the pool.
  if (pool.length > 0) early = { node, pool };
}

/** proc(5), /proc/PID/stat: flags of the kernel's, behind the name. */
const FLAGS_FIELD = 6;
/** linux/sched.h: PF_IO_WORKER and PF_USER_WORKER. */
const KERNELS_OWN = 0x4010;

/** As long as none begins or ends. */
export function threadsByKind(): Readonly<Record<ThreadKind, readonly number[]>> {
  const main = process.pid;
  const { node, pool } = early ?? { node: [], pool: [] };
  // Those that were there early are the process's, without a look at each.
  const late = threadsNow().filter(
    (thread) => thread !== main && !node.includes(thread) && !pool.includes(thread) && !isKernels(thread),
  );
  if (early === undefined) return { main: [main], any: late, pool: [], node: [], vcpu: [] };
  return {
    main: [main],
    any: [],
    pool,
    node: node.filter((thread) => thread !== main),
    vcpu: late,
  };
}

/** Of a process's threads, some are the kernel's own (KVM's, vhost's): they run no code of the process, and hear no signal. */
function isKernels(thread: number): boolean {
  const stat = readFileSync(`/proc/self/task/${String(thread)}/stat`, "latin1");
  return (Number(statFieldsOf(stat)[FLAGS_FIELD]) & KERNELS_OWN) !== 0;
}

function threadsNow(): number[] {
  return readdirSync("/proc/self/task").map(Number);
}
