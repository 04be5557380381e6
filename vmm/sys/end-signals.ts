// The signals that end a program. vmlet catches them to remove its files, restore the terminal, and
// write out the guest's last output.
import { wasIgnored } from "../host/inherited-signals.js";
import { KICK_SIGNAL } from "./kick.js";
import { catchSignals } from "./signals.js";

/**
 * Every signal whose default action is the end, as signal(7) lists them: HUP INT QUIT ILL TRAP ABRT
 * BUS FPE USR1 SEGV USR2 ALRM TERM STKFLT XCPU VTALRM PROF IO PWR SYS. Not KILL, which nobody catches, and
 * not PIPE and XFSZ, which Node has turned into EPIPE and EFBIG.
 */
const STANDARD = [1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 14, 15, 16, 24, 26, 27, 29, 30, 31];
/** The first real-time signal that the C library leaves to programs, and the last there is. */
const SIGRTMIN = 34;
const SIGRTMAX = 64;

export function endSignals(): number[] {
  const realTime = Array.from({ length: SIGRTMAX - SIGRTMIN + 1 }, (_, index) => SIGRTMIN + index);
  return [...STANDARD, ...realTime].filter((signal) => signal !== KICK_SIGNAL && !wasIgnored(signal));
}

/** Calls back for the signals that end the VM cleanly; the result gives them their default action back. */
export function onEndSignals(callback: (number: number) => void): () => void {
  return catchSignals(endSignals(), callback, { ends: true });
}
