// Breaking a thread out of KVM_RUN: a real-time signal whose handler is libc's getpid,
// so that the system call is interrupted (EINTR) and no JavaScript runs.
import { libc, type NativeFunction } from "./koffi.js";
import { systemCallError } from "./errno.js";

/** SIGRTMIN+6: unused by Node, V8 and glibc, and queued rather than merged. */
export const KICK_SIGNAL = 40;
const SIGALRM = 14;
const ITIMER_REAL = 0;
const ALARM_REPEAT_MS = 20;

/** glibc's struct sigaction on x86-64: handler, 128-byte mask, flags, restorer. */
const SIZEOF_SIGACTION = 152;

let tgkill: NativeFunction | undefined;
let installed = false;

function ignoreQuietly(signal: number): void {
  const action = new BigUint64Array(SIZEOF_SIGACTION / 8);
  // No SA_RESTART: the point is that the interrupted call returns.
  action[0] = libc.symbol("getpid");
  const sigaction = libc.func("sigaction", "int", ["int", "void *", "int64_t"]);
  // SAFETY: the structure is read during the call only; getpid is async-signal-safe and takes no argument.
  if (sigaction(signal, action, 0) < 0) throw systemCallError("sigaction");
}

/** Must have run in the process before the first kick: the default action would end it. */
export function installKickHandler(): void {
  if (installed) return;
  ignoreQuietly(KICK_SIGNAL);
  installed = true;
}

/** The calling thread's id, as tgkill wants it. */
export function gettid(): number {
  return libc.func("gettid", "int", [])();
}

/** Interrupts the system call that thread `tid` of this process is in, if any. */
export function kickThread(tid: number): void {
  tgkill ??= libc.func("tgkill", "int", ["int", "int", "int"]);
  tgkill(process.pid, tid, KICK_SIGNAL);
}

/**
 * Interrupts the main thread after `milliseconds` and then again and again, because a signal that
 * comes just before KVM_RUN interrupts nothing; 0 takes the alarm back.
 */
export function alarmMainThread(milliseconds: number, repeatMs = ALARM_REPEAT_MS): void {
  ignoreQuietly(SIGALRM);
  const timer = new BigInt64Array(4);
  // struct itimerval: interval, then first value, each in seconds and microseconds.
  timer[1] = milliseconds === 0 ? 0n : BigInt(repeatMs * 1000);
  timer[2] = BigInt(Math.floor(milliseconds / 1000));
  timer[3] = BigInt((milliseconds % 1000) * 1000);
  const setitimer = libc.func("setitimer", "int", ["int", "void *", "int64_t"]);
  // SAFETY: struct itimerval of 32 bytes, read during the call only.
  if (setitimer(ITIMER_REAL, timer, 0) < 0) throw systemCallError("setitimer");
}
