// Signals as events, all of them: Node knows names up to 31 only, and none while its event loop stands
// still. The handler is a few bytes of machine code that count the signal and ring an eventfd; it
// runs on whichever thread the kernel has picked, and touches nothing else.
import { systemCallError } from "./errno.js";
import { drainEventfd, eventfd, pollReadable, type PollHandle } from "./events.js";
import { koffi, libc, type NativeFunction } from "./koffi.js";
import { mmapExecutable } from "./memory.js";

const SIG_DFL = 0n;
const SIG_IGN = 1n;
/** glibc's and musl's struct sigaction on x86-64: handler, 128-byte mask, flags, restorer. */
const SIZEOF_SIGACTION = 152;
const SA_FLAGS_AT = 136;
const SA_SIGINFO = 0x4n;
const SA_ONSTACK = 0x0800_0000n;
const SA_RESTART = 0x1000_0000n;

/** Signals of a processor's fault, when it is the kernel that sends them. */
const FAULTS: readonly number[] = [4, 5, 7, 8, 11, 31];
/** This many signals of one kind end a program that no longer answers them. */
const UNANSWERED = 3;

const PAGE = 4096;
const SIGNALS = 65;
// The page: code, then data.
const RING = 0x400;
const ONE = 0x408;
const NO_ACTION = 0x440;
const COUNTS = 0x800;
const LIMITS = 0xa00;
const ABORTED = 0xc00;

const SIGABRT = 6;
/** Node's pool of threads aborts the process without a word where it gets none. */
const ABORTED_TEXT = Buffer.from(
  "vmlet: Node has aborted; if it does not say why, no more threads are allowed: raise ulimit -u, or the cgroup's pids.max\n",
);

let native: NativeFunction | undefined;

function setAction(signal: number, handler: bigint): void {
  native ??= libc.func("sigaction", "int", ["int", "void *", "int64_t"]);
  const action = new BigUint64Array(SIZEOF_SIGACTION / 8);
  action[0] = handler;
  if (handler !== SIG_DFL && handler !== SIG_IGN) action[SA_FLAGS_AT / 8] = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
  // SAFETY: the structure is read during the call only; a handler's page is never unmapped.
  if (native(signal, action, 0) < 0) throw systemCallError("sigaction");
}

export function ignoreSignal(signal: number): void {
  setAction(signal, SIG_IGN);
}

export function setDefaultAction(signal: number): void {
  setAction(signal, SIG_DFL);
}

/** Machine code at `address`, in memory that is never unmapped, is the signal's handler from now on. */
export function setHandler(signal: number, address: number): void {
  setAction(signal, BigInt(address));
}

/** The machine code, with data at its place in the same page; exported for tests. */
export function handlerCode(): {
  readonly code: Uint8Array;
  readonly faultEntry: number;
  readonly entry: number;
  readonly abortEntry: number;
} {
  const code: number[] = [];
  const emit = (...bytes: number[]): void => void code.push(...bytes);
  /** disp32 to `target`, relative to the end of the instruction. */
  const relative = (target: number): number[] => {
    const distance = target - (code.length + 4);
    return [0, 8, 16, 24].map((shift) => (distance >> shift) & 0xff);
  };
  // void handler(int signal, siginfo_t *info, void *context): edi, rsi, rdx.
  const faultEntry = code.length;
  emit(0x83, 0x7e, 0x08, 0x00); // cmp dword [rsi+8], 0: si_code, above 0 if the kernel has sent it
  emit(0x7f, 0x00); // jg fault
  const toFault = code.length;
  const entry = code.length;
  emit(0xb8, 1, 0, 0, 0); // mov eax, 1
  emit(0x48, 0x8d, 0x15);
  emit(...relative(COUNTS)); // lea rdx, [counts]
  emit(0xf0, 0x0f, 0xc1, 0x04, 0xba); // lock xadd [rdx+rdi*4], eax
  emit(0x3b, 0x84, 0xba, 0x00, (LIMITS - COUNTS) >> 8, 0, 0); // cmp eax, [limits+rdi*4]
  emit(0x7d, 0x00); // jge leave
  const toLeave = code.length;
  emit(0xb8, 1, 0, 0, 0); // mov eax, SYS_write
  emit(0x8b, 0x3d);
  emit(...relative(RING)); // mov edi, [ring]
  emit(0x48, 0x8d, 0x35);
  emit(...relative(ONE)); // lea rsi, [one]
  emit(0xba, 8, 0, 0, 0, 0x0f, 0x05, 0xc3); // mov edx, 8; syscall; ret
  code[toLeave - 1] = code.length - toLeave;
  emit(0x8d, 0xbf, 0x80, 0, 0, 0); // leave: lea edi, [rdi+128]
  emit(0xb8, 231, 0, 0, 0, 0x0f, 0x05); // mov eax, SYS_exit_group; syscall
  code[toFault - 1] = code.length - toFault;
  emit(0xb8, 13, 0, 0, 0); // fault: mov eax, SYS_rt_sigaction
  emit(0x48, 0x8d, 0x35);
  emit(...relative(NO_ACTION)); // lea rsi, [SIG_DFL without flags]
  emit(0x31, 0xd2, 0x41, 0xba, 8, 0, 0, 0, 0x0f, 0x05, 0xc3); // xor edx, edx; mov r10d, 8; syscall; ret: faults again
  const abortEntry = code.length;
  emit(0x83, 0x7e, 0x08, 0xfa); // cmp dword [rsi+8], SI_TKILL: abort(3) sends it so, kill(1) does not
  emit(0x0f, 0x85);
  emit(...relative(entry)); // jne entry
  emit(0xb8, 1, 0, 0, 0, 0xbf, 2, 0, 0, 0); // mov eax, SYS_write; mov edi, standard error
  emit(0x48, 0x8d, 0x35);
  emit(...relative(ABORTED)); // lea rsi, [aborted]
  emit(0xba, ABORTED_TEXT.length, 0, 0, 0, 0x0f, 0x05, 0xc3); // mov edx, length; syscall; ret: abort goes on
  return { code: Uint8Array.from(code), faultEntry, entry, abortEntry };
}

/** The page, its eventfd, and who is called; made at the first signal to catch, and there for good. */
class Station {
  readonly #counts: Int32Array;
  readonly #limits: Int32Array;
  readonly #address: number;
  readonly #entry: number;
  readonly #faultEntry: number;
  readonly #abortEntry: number;
  readonly #callbacks = new Map<number, (signal: number) => void>();
  /** Kept, or it would fall silent. */
  readonly #poll: PollHandle;

  constructor() {
    this.#address = mmapExecutable(PAGE);
    const page = koffi.view(this.#address, PAGE);
    const { code, entry, faultEntry, abortEntry } = handlerCode();
    new Uint8Array(page).set(code);
    new Uint8Array(page).set(ABORTED_TEXT, ABORTED);
    const fd = eventfd();
    new Int32Array(page, RING, 1)[0] = fd;
    new Int32Array(page, ONE, 2)[0] = 1;
    this.#entry = entry;
    this.#faultEntry = faultEntry;
    this.#abortEntry = abortEntry;
    this.#counts = new Int32Array(page, COUNTS, SIGNALS);
    this.#limits = new Int32Array(page, LIMITS, SIGNALS);
    this.#poll = pollReadable(fd, () => {
      drainEventfd(fd);
      this.deliver();
    });
    this.#poll.unref();
  }

  catch(signal: number, callback: (signal: number) => void, ends: boolean): void {
    this.#callbacks.set(signal, callback);
    this.#limits[signal] = ends ? UNANSWERED - 1 : 2 ** 31 - 1;
    setAction(signal, BigInt(this.#address + this.#entryOf(signal)));
  }

  #entryOf(signal: number): number {
    if (signal === SIGABRT) return this.#abortEntry;
    return FAULTS.includes(signal) ? this.#faultEntry : this.#entry;
  }

  release(signal: number): void {
    this.#callbacks.delete(signal);
    setDefaultAction(signal);
  }

  deliver(): void {
    for (const [signal, callback] of [...this.#callbacks]) {
      if (Atomics.exchange(this.#counts, signal, 0) > 0) callback(signal);
    }
  }
}

let station: Station | undefined;

/** Calls back for signals that have come by now, and not in a later turn of the event loop. */
export function deliverSignals(): void {
  station?.deliver();
}

/**
 * Calls back in a turn of the event loop when one of the signals has come; the result takes that
 * back, to the default action. `ends` for signals that end a program: a third one that finds the
 * first unanswered does so at once.
 */
export function catchSignals(
  signals: readonly number[],
  callback: (signal: number) => void,
  { ends }: { readonly ends: boolean },
): () => void {
  const one = (station ??= new Station());
  for (const signal of signals) one.catch(signal, callback, ends);
  return () => {
    for (const signal of signals) one.release(signal);
  };
}
