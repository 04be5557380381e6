// The signals that end a program, and the two that pause a guest. vmlet catches them to remove its files, restore
// the terminal, and write out the guest's last output.
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
const SIGUSR1 = 10;
const SIGUSR2 = 12;

/** Those that a guest's run takes for something else than its end. */
export const PAUSE_SIGNALS: readonly number[] = [SIGUSR1, SIGUSR2];

export function endSignals(): number[] {
  const realTime = Array.from({ length: SIGRTMAX - SIGRTMIN + 1 }, (_, index) => SIGRTMIN + index);
  return [...STANDARD, ...realTime].filter((signal) => signal !== KICK_SIGNAL && !wasIgnored(signal));
}

/**
 * Calls back for the signals that end the VM cleanly, all but `except`; the result gives them their default action
 * back.
 */
export function onEndSignals(
  callback: (number: number) => void,
  { except = [] }: { readonly except?: readonly number[] } = {},
): () => void {
  const signals = endSignals().filter((signal) => !except.includes(signal));
  return catchSignals(signals, callback, { ends: true });
}

/** Calls back for SIGUSR1 and SIGUSR2, unless they were ignored at the start; the result gives them their default action back. */
export function onPauseSignals({
  pause,
  resume,
}: {
  readonly pause: () => void;
  readonly resume: () => void;
}): () => void {
  const signals = PAUSE_SIGNALS.filter((signal) => !wasIgnored(signal));
  return catchSignals(
    signals,
    (signal) => {
      if (signal === SIGUSR1) pause();
      else resume();
    },
    { ends: false },
  );
}
