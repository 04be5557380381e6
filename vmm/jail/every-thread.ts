// System calls that concern the calling thread alone, made by every thread of this process: capabilities, no_new_privs, Landlock, the
// filter of its kind. As a C library does it for setuid: a signal to each thread, whose handler makes the calls; which ones comes with the
// signal. It is the one that C libraries keep to themselves, so no thread blocks it.
import { HostError } from "../errors.js";
import { systemCallError } from "../sys/errno.js";
import { mmapExecutable, viewMemory } from "../sys/memory.js";
import { rawCall } from "../sys/raw-call.js";
import type { Scratch } from "./scratch.js";

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
/** The kernel's struct sigaction: handler, flags, restorer, mask. */
const ACTION_BYTES = 32;

const PAGE = 4096;
/** A call: number, three arguments, how many threads it has failed for. The last one is END and the address of a counter. */
const CALL_WORDS = 5;
const CALL_BYTES = 8 * CALL_WORDS;
const END = -1n;
const END_WORDS = 2;
/** siginfo_t: its length, si_code, by which nobody but the sender says what it is, and si_value. */
const INFO_BYTES = 128;
const SI_CODE = 8;
const SI_VALUE = 24;
const SI_QUEUE = -1;
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
  // void handler(int signal, siginfo_t *info, void *context): edi, rsi, rdx.
  emit(0x53, 0x48, 0x8b, 0x5e, SI_VALUE); // push rbx; mov rbx, [rsi+24]
  emit(0x48, 0x8b, 0x03, 0x48, 0x85, 0xc0, 0x78, 0x24); // L: mov rax, [rbx]; test rax, rax; js done
  emit(0x48, 0x8b, 0x7b, 0x08, 0x48, 0x8b, 0x73, 0x10, 0x48, 0x8b, 0x53, 0x18); // mov rdi, [rbx+8]; rsi, [rbx+16]; rdx, [rbx+24]
  emit(0x4d, 0x31, 0xd2, 0x4d, 0x31, 0xc0, 0x0f, 0x05); // xor r10, r10; xor r8, r8; syscall
  emit(0x48, 0x85, 0xc0, 0x79, 0x05, 0xf0, 0x48, 0xff, 0x43, 0x20); // test rax, rax; jns next; lock inc qword [rbx+32]
  emit(0x48, 0x83, 0xc3, CALL_BYTES, 0xeb, 0xd4); // next: add rbx, 40; jmp L
  emit(0x48, 0x8b, 0x43, 0x08, 0xf0, 0xff, 0x00, 0x5b, 0xc3); // done: mov rax, [rbx+8]; lock inc dword [rax]; pop rbx; ret
  const restorer = code.length;
  emit(0xb8, ...u32(15), 0x0f, 0x05); // mov eax, SYS_rt_sigreturn; syscall
  return { code: Uint8Array.from(code), restorer };
}

/** Lists of calls for threads. Only while no other threads begin, and while those that there are need nothing of the calling one. */
export class ThreadCalls {
  readonly #scratch: Scratch;
  readonly #former: number;
  readonly #info: DataView;
  readonly #infoAddress: number;
  readonly #counter: Int32Array;
  readonly #counterAddress: number;
  #sent = 0;

  /** Nobody unmaps the scratch before `wait` has returned. Throws SystemCallError. */
  constructor(scratch: Scratch) {
    this.#scratch = scratch;
    // For good: a thread that has counted itself done is still to return from it.
    const page = mmapExecutable(PAGE);
    const { code, restorer } = handlerCode();
    new Uint8Array(viewMemory(page, PAGE)).set(code);
    const action = scratch.room(ACTION_BYTES);
    this.#former = scratch.room(ACTION_BYTES).address;
    const flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART | SA_RESTORER;
    new BigUint64Array(scratch.memory, action.at, 4).set([BigInt(page), flags, BigInt(page + restorer), 0n]);
    setAction(action.address, this.#former);
    const info = scratch.room(INFO_BYTES);
    this.#info = new DataView(scratch.memory, info.at, INFO_BYTES);
    this.#info.setInt32(SI_CODE, SI_QUEUE, true);
    this.#infoAddress = info.address;
    const counter = scratch.room(4);
    this.#counter = new Int32Array(scratch.memory, counter.at, 1);
    this.#counterAddress = counter.address;
  }

  /**
   * The threads begin with the calls, each on its own. The result reads from the scratch, once `wait` has returned, for how many of them each
   * call has failed. Throws SystemCallError.
   */
  begin(threads: readonly number[], calls: readonly ThreadCall[]): () => number[] {
    const { address, at } = this.#scratch.room(8 * (CALL_WORDS * calls.length + END_WORDS));
    const list = new BigInt64Array(this.#scratch.memory, at, CALL_WORDS * calls.length + END_WORDS);
    for (const [call, { number, arguments: given }] of calls.entries()) {
      list.set([number, ...given].map(BigInt), CALL_WORDS * call);
    }
    list.set([END, BigInt(this.#counterAddress)], CALL_WORDS * calls.length);
    this.#info.setBigInt64(SI_VALUE, BigInt(address), true);
    for (const thread of threads) {
      // SAFETY: a siginfo_t in the scratch, read during the call only.
      const result = rawCall(SYS_RT_TGSIGQUEUEINFO, process.pid, thread, SIGNAL, this.#infoAddress);
      if (result === 0) this.#sent++;
      // It has ended meanwhile.
      else if (result !== -ESRCH) throw systemCallError("rt_tgsigqueueinfo", -result);
    }
    return () => calls.map((_, call) => Number(list[CALL_WORDS * call + CALL_WORDS - 1]));
  }

  /** Returns when all threads are done with all that has begun. Throws HostError if one does not answer. */
  wait(): void {
    const clock = new Int32Array(new SharedArrayBuffer(4));
    const POLL_MS = 0.05;
    const since = process.hrtime.bigint();
    while (Atomics.load(this.#counter, 0) < this.#sent) {
      if (Number(process.hrtime.bigint() - since) / 1e6 > LIMIT_MS)
        throw new HostError("A thread of Node's does not answer");
      Atomics.wait(clock, 0, 0, POLL_MS);
    }
  }

  /** The signal is the C library's again. */
  end(): void {
    setAction(this.#former, 0);
  }
}

function setAction(action: number, former: number): void {
  // SAFETY: two structures in the scratch, used during the call only.
  const result = rawCall(SYS_RT_SIGACTION, SIGNAL, action, former, SIGSET_BYTES);
  if (result < 0) throw systemCallError("rt_sigaction", -result);
}
