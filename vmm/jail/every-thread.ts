// System calls that concern the calling thread alone, made by every thread of this process: capabilities, no_new_privs, Landlock, the filter of its
// kind. As a C library does it for setuid: a signal to each thread, whose handler makes the calls; which ones comes with the signal. It
// is the one that C libraries keep to themselves, so no thread blocks it.
import { HostError } from "../errors.js";
import { systemCallError } from "../sys/errno.js";
import { mmapExecutable, munmap, viewMemory } from "../sys/memory.js";
import { rawCall } from "../sys/raw-call.js";

/** The first real-time signal: glibc's for pthread_cancel, musl's for timers. */
const SIGNAL = 32;
const SYS_RT_SIGACTION = 13;
const SYS_RT_TGSIGQUEUEINFO = 297;
const ESRCH = 3;
const SIGSET_BYTES = 8;
/** Without it, the kernel hands over no siginfo_t. */
const SA_SIGINFO = 4n;
const SA_ONSTACK = 0x0800_0000n;
const SA_RESTART = 0x1000_0000n;
const SA_RESTORER = 0x0400_0000n;

const PAGE = 4096;
// The pages: code, counter, actions, siginfo_t, calls.
const DONE = 0x80;
const ACTION = 0xc0;
const FORMER = 0x100;
const INFO = 0x140;
const CALLS = 0x1c0;
/** A call: number, three arguments, how many threads it has failed for. */
const CALL_WORDS = 5;
const CALL_BYTES = 8 * CALL_WORDS;
const END = -1n;
/** siginfo_t's si_code, by which nobody but the sender says what it is, and si_value. */
const SI_CODE = 8;
const SI_VALUE = 24;
const SI_QUEUE = -1;
/** How long a thread may take to hear of it, `ms`. */
const LIMIT_MS = 10_000;

export interface ThreadCall {
  readonly number: number;
  readonly arguments: readonly number[];
}

/** What some threads are to do. */
export interface ThreadCalls {
  readonly threads: readonly number[];
  readonly calls: readonly ThreadCall[];
}

const u32 = (value: number): number[] => [0, 8, 16, 24].map((shift) => (value >> shift) & 0xff);

function handlerCode(): { readonly code: Uint8Array; readonly restorer: number } {
  const code: number[] = [];
  const emit = (...bytes: number[]): void => void code.push(...bytes);
  // void handler(int signal, siginfo_t *info, void *context): edi, rsi, rdx.
  emit(0x53, 0x48, 0x8b, 0x5e, SI_VALUE); // push rbx; mov rbx, [rsi+24]
  emit(0x48, 0x8b, 0x03, 0x48, 0x85, 0xc0, 0x78, 0x24); // L: mov rax, [rbx]; test rax, rax; js done
  emit(0x48, 0x8b, 0x7b, 0x08, 0x48, 0x8b, 0x73, 0x10, 0x48, 0x8b, 0x53, 0x18); // mov rdi, [rbx+8]; rsi, [rbx+16]; rdx, [rbx+24]
  emit(0x4d, 0x31, 0xd2, 0x4d, 0x31, 0xc0, 0x0f, 0x05); // xor r10, r10; xor r8, r8; syscall
  emit(0x48, 0x85, 0xc0, 0x79, 0x05, 0xf0, 0x48, 0xff, 0x43, 0x20); // test rax, rax; jns next; lock inc qword [rbx+32]
  emit(0x48, 0x83, 0xc3, CALL_BYTES, 0xeb, 0xd4); // next: add rbx, 40; jmp L
  emit(0xf0, 0xff, 0x05, ...u32(DONE - (code.length + 7)), 0x5b, 0xc3); // done: lock inc dword [counter]; pop rbx; ret
  const restorer = code.length;
  emit(0xb8, ...u32(15), 0x0f, 0x05); // mov eax, SYS_rt_sigreturn; syscall
  if (code.length > DONE) throw new Error("The code is longer than its place");
  return { code: Uint8Array.from(code), restorer };
}

/**
 * The lists at once, each by all of its threads, and the last one when the others are done. The result: for how many threads each call of
 * each list has failed. The calling thread has to be in the last list if its calls take away what this needs. Only before other threads can begin, and while they need
 * nothing of the calling one. Throws SystemCallError, or HostError if a thread does not answer.
 */
export function callOnThreads(lists: readonly ThreadCalls[]): number[][] {
  const words = lists.reduce((sum, { calls }) => sum + CALL_WORDS * calls.length + 1, 0);
  const size = Math.ceil((CALLS + 8 * words) / PAGE) * PAGE;
  const address = mmapExecutable(size);
  const memory = viewMemory(address, size);
  const { code, restorer } = handlerCode();
  new Uint8Array(memory).set(code);
  // struct sigaction of the kernel: handler, flags, restorer, mask.
  const flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART | SA_RESTORER;
  new BigUint64Array(memory, ACTION, 4).set([BigInt(address), flags, BigInt(address + restorer), 0n]);
  const setAction = (action: number, former: number): void => {
    // SAFETY: two structures in the pages, used during the call only.
    const result = rawCall(SYS_RT_SIGACTION, SIGNAL, action, former, SIGSET_BYTES);
    if (result < 0) throw systemCallError("rt_sigaction", -result);
  };
  setAction(address + ACTION, address + FORMER);
  const counter = new Int32Array(memory, DONE, 1);
  const info = new DataView(memory, INFO);
  info.setInt32(SI_CODE, SI_QUEUE, true);
  let at = CALLS;
  let sent = 0;
  const written = lists.map(({ threads, calls }, index) => {
    const list = new BigInt64Array(memory, at, CALL_WORDS * calls.length + 1);
    for (const [call, { number, arguments: given }] of calls.entries()) {
      list.set([number, ...given].map(BigInt), CALL_WORDS * call);
    }
    list[CALL_WORDS * calls.length] = END;
    if (index === lists.length - 1) waitFor(counter, sent);
    info.setBigInt64(SI_VALUE, BigInt(address + at), true);
    sent += signalAll(threads, address + INFO);
    at += list.byteLength;
    return list;
  });
  waitFor(counter, sent);
  const failures = lists.map(({ calls }, index) =>
    calls.map((_, call) => Number(written[index]?.[CALL_WORDS * call + CALL_WORDS - 1])),
  );
  setAction(address + FORMER, 0);
  munmap(address, size);
  return failures;
}

/** How many threads there are to wait for. */
function signalAll(threads: readonly number[], info: number): number {
  let sent = 0;
  for (const thread of threads) {
    // SAFETY: a siginfo_t in the caller's pages, read during the call only.
    const result = rawCall(SYS_RT_TGSIGQUEUEINFO, process.pid, thread, SIGNAL, info);
    if (result === 0) sent++;
    // It has ended meanwhile.
    else if (result !== -ESRCH) throw systemCallError("rt_tgsigqueueinfo", -result);
  }
  return sent;
}

function waitFor(counter: Int32Array, sent: number): void {
  const clock = new Int32Array(new SharedArrayBuffer(4));
  const POLL_MS = 0.05;
  const since = process.hrtime.bigint();
  while (Atomics.load(counter, 0) < sent) {
    if (Number(process.hrtime.bigint() - since) / 1e6 > LIMIT_MS)
      throw new HostError("A thread of Node's does not answer");
    Atomics.wait(clock, 0, 0, POLL_MS);
  }
}
