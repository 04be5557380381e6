// System calls that concern the calling thread alone, made by every thread of this process: capabilities, no_new_privs, Landlock. As a C
// library does it for setuid: a signal to each thread, whose handler makes the calls. The signal is the one that C libraries keep to
// themselves, so no thread blocks it.
import { readFileSync, readdirSync } from "node:fs";
import { HostError } from "../errors.js";
import { systemCallError } from "../sys/errno.js";
import { mmapExecutable, munmap, viewMemory } from "../sys/memory.js";
import { rawCall } from "../sys/raw-call.js";

/** The first real-time signal: glibc's for pthread_cancel, musl's for timers. */
const SIGNAL = 32;
const SYS_RT_SIGACTION = 13;
const SYS_TGKILL = 234;
const ESRCH = 3;
const SIGSET_BYTES = 8;
const SA_ONSTACK = 0x0800_0000n;
const SA_RESTART = 0x1000_0000n;
const SA_RESTORER = 0x0400_0000n;

const SIZE = 3 * 4096;
// The pages: code, counter, actions, calls.
const DONE = 0x100;
const ACTION = 0x140;
const FORMER = 0x180;
const CALLS = 0x200;
/** A call: number, three arguments, how many threads it has failed for. */
const CALL_WORDS = 5;
const CALL_BYTES = 8 * CALL_WORDS;
const END = -1n;
/** linux/sched.h, since Linux 6.4. */
const PF_USER_WORKER = 0x4000;
/** How long a thread may take to hear of it, `ms`. */
const LIMIT_MS = 10_000;

export interface ThreadCall {
  readonly number: number;
  readonly arguments: readonly number[];
}

const u32 = (value: number): number[] => [0, 8, 16, 24].map((shift) => (value >> shift) & 0xff);

function handlerCode(): { readonly code: Uint8Array; readonly restorer: number } {
  const code: number[] = [];
  const emit = (...bytes: number[]): void => void code.push(...bytes);
  emit(0x53, 0x48, 0x8d, 0x1d, ...u32(CALLS - 8)); // push rbx; lea rbx, [calls]
  emit(0x48, 0x8b, 0x03, 0x48, 0x85, 0xc0, 0x78, 0x24); // L: mov rax, [rbx]; test rax, rax; js done
  emit(0x48, 0x8b, 0x7b, 0x08, 0x48, 0x8b, 0x73, 0x10, 0x48, 0x8b, 0x53, 0x18); // mov rdi, [rbx+8]; rsi, [rbx+16]; rdx, [rbx+24]
  emit(0x4d, 0x31, 0xd2, 0x4d, 0x31, 0xc0, 0x0f, 0x05); // xor r10, r10; xor r8, r8; syscall
  emit(0x48, 0x85, 0xc0, 0x79, 0x05, 0xf0, 0x48, 0xff, 0x43, 0x20); // test rax, rax; jns next; lock inc qword [rbx+32]
  emit(0x48, 0x83, 0xc3, CALL_BYTES, 0xeb, 0xd4); // next: add rbx, 40; jmp L
  emit(0xf0, 0xff, 0x05, ...u32(DONE - (code.length + 7)), 0x5b, 0xc3); // done: lock inc dword [counter]; pop rbx; ret
  const restorer = code.length;
  emit(0xb8, ...u32(15), 0x0f, 0x05); // mov eax, SYS_rt_sigreturn; syscall
  return { code: Uint8Array.from(code), restorer };
}

/**
 * The result: for how many threads each call has failed. `threads` are all that there are. Only before other threads can begin, and while they
 * need nothing of the calling one. Throws SystemCallError, or HostError if a thread does not answer.
 */
export function callOnEveryThread(calls: readonly ThreadCall[], threads: readonly number[] = threadsNow()): number[] {
  const address = mmapExecutable(SIZE);
  const page = viewMemory(address, SIZE);
  const { code, restorer } = handlerCode();
  new Uint8Array(page).set(code);
  // struct sigaction of the kernel: handler, flags, restorer, mask.
  const flags = SA_ONSTACK | SA_RESTART | SA_RESTORER;
  new BigUint64Array(page, ACTION, 4).set([BigInt(address), flags, BigInt(address + restorer), 0n]);
  const list = new BigInt64Array(page, CALLS, CALL_WORDS * calls.length + 1);
  for (const [at, { number, arguments: given }] of calls.entries()) {
    list.set([number, ...given].map(BigInt), CALL_WORDS * at);
  }
  list[CALL_WORDS * calls.length] = END;
  const setAction = (action: number, former: number): void => {
    // SAFETY: two structures in the page, used during the call only.
    const result = rawCall(SYS_RT_SIGACTION, SIGNAL, action, former, SIGSET_BYTES);
    if (result < 0) throw systemCallError("rt_sigaction", -result);
  };
  setAction(address + ACTION, address + FORMER);
  signalAll(threads, new Int32Array(page, DONE, 1));
  setAction(address + FORMER, 0);
  const failures = calls.map((_, at) => Number(list[CALL_WORDS * at + CALL_WORDS - 1]));
  munmap(address, SIZE);
  return failures;
}

/** Those that run programs, as long as none begins or ends: KVM and vhost have threads of the kernel's among them, which hear no signal. */
export function threadsNow(): number[] {
  return readdirSync("/proc/self/task")
    .filter((thread) => (flagsOf(thread) & PF_USER_WORKER) === 0)
    .map(Number);
}

/** proc(5): the 9th word of stat, of which the 2nd, in brackets, may be any. */
function flagsOf(thread: string): number {
  const stat = readFileSync(`/proc/self/task/${thread}/stat`, "latin1");
  return Number(stat.slice(stat.lastIndexOf(")")).split(" ")[7]);
}

/** Returns once all threads have done it. */
function signalAll(threads: readonly number[], counter: Int32Array): void {
  let sent = 0;
  for (const thread of threads) {
    const result = rawCall(SYS_TGKILL, process.pid, thread, SIGNAL);
    if (result === 0) sent++;
    // It has ended meanwhile.
    else if (result !== -ESRCH) throw systemCallError("tgkill", -result);
  }
  const clock = new Int32Array(new SharedArrayBuffer(4));
  const POLL_MS = 0.05;
  const since = process.hrtime.bigint();
  while (Atomics.load(counter, 0) < sent) {
    if (Number(process.hrtime.bigint() - since) / 1e6 > LIMIT_MS)
      throw new HostError("A thread of Node's does not answer");
    Atomics.wait(clock, 0, 0, POLL_MS);
  }
}
