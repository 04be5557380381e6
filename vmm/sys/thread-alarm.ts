// Brings one thread out of KVM_RUN when its time has come: a POSIX timer whose signal goes to that
// thread alone. Every VM has its own, unlike an interval timer, of which a process has one and whose
// signal goes to whichever thread the kernel picks. timer_create(2), SIGEV_THREAD_ID.
import { systemCallError, uninterrupted } from "./errno.js";
import { lazy } from "./koffi.js";
import { KICK_SIGNAL, gettid, installKickHandler } from "./kick.js";

// The numbers of x86-64: older C libraries have these calls in a library of their own.
const SYS_TIMER_CREATE = 222;
const SYS_TIMER_SETTIME = 223;
const SYS_TIMER_DELETE = 226;
const nativeCreate = lazy("syscall", "int64_t", ["int64_t", "int64_t", "void *", "void *"]);
const nativeSettime = lazy("syscall", "int64_t", ["int64_t", "int64_t", "int64_t", "void *", "void *"]);
const nativeDelete = lazy("syscall", "int64_t", ["int64_t", "int64_t"]);

const CLOCK_MONOTONIC = 1;
const SIGEV_THREAD_ID = 4;
/** A signal that comes just before KVM_RUN interrupts nothing, so another follows, in `ms`. */
const REPEAT_MS = 20;

export class ThreadAlarm {
  readonly #repeatMs: number;
  #timer: number | undefined;

  constructor(repeatMs = REPEAT_MS) {
    this.#repeatMs = repeatMs;
  }

  /**
   * Interrupts the system call that the calling thread is in `delayMs` from now, and then again and
   * again, in place of what was set before. Always from the same thread.
   */
  set(delayMs: number): void {
    this.#timer ??= createTimer();
    setTimer(this.#timer, Math.max(delayMs, 1), this.#repeatMs);
  }

  /** Silent until it is set again. */
  clear(): void {
    if (this.#timer !== undefined) setTimer(this.#timer, 0, 0);
  }

  close(): void {
    if (this.#timer !== undefined) nativeDelete(SYS_TIMER_DELETE, this.#timer);
    this.#timer = undefined;
  }
}

function createTimer(): number {
  installKickHandler();
  // struct sigevent of 64 bytes: value, signal, how, thread.
  const event = new Int32Array(16);
  event[2] = KICK_SIGNAL;
  event[3] = SIGEV_THREAD_ID;
  event[4] = gettid();
  const id = new Int32Array(1);
  // SAFETY: struct sigevent is read and an int written during this call only.
  const create = (): number => nativeCreate(SYS_TIMER_CREATE, CLOCK_MONOTONIC, event, id);
  if (uninterrupted(create) < 0) throw systemCallError("timer_create");
  return id[0] ?? 0;
}

function setTimer(id: number, delayMs: number, repeatMs: number): void {
  const time = new BigInt64Array(4);
  // struct itimerspec: interval, then first value, each in seconds and nanoseconds.
  for (const [at, ms] of [repeatMs, delayMs].entries()) {
    time[2 * at] = BigInt(Math.floor(ms / 1000));
    time[2 * at + 1] = BigInt(Math.floor((ms % 1000) * 1e6));
  }
  // SAFETY: struct itimerspec of 32 bytes, read during this call only.
  if (uninterrupted(() => nativeSettime(SYS_TIMER_SETTIME, id, 0, time, null)) < 0)
    throw systemCallError("timer_settime");
}
