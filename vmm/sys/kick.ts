// Breaking a thread out of KVM_RUN: a real-time signal whose handler is libc's getpid,
// so that the system call is interrupted (EINTR) and no JavaScript runs.
import { libc, type NativeFunction } from "./koffi.js";
import { systemCallError } from "./errno.js";

/** SIGRTMIN+6: unused by Node, V8 and glibc, and queued rather than merged. */
export const KICK_SIGNAL = 40;

/** glibc's struct sigaction on x86-64: handler, 128-byte mask, flags, restorer. */
const SIZEOF_SIGACTION = 152;
const SA_FLAGS_AT = 136;
/** KVM_RUN returns in any case; every other call of the thread goes on behind the signal. */
const SA_RESTART = 0x1000_0000n;

let tgkill: NativeFunction | undefined;
let installed = false;

function ignoreQuietly(signal: number): void {
  const action = new BigUint64Array(SIZEOF_SIGACTION / 8);
  action[0] = libc.symbol("getpid");
  action[SA_FLAGS_AT / 8] = SA_RESTART;
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
