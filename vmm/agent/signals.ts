// Signals of Linux by name and number. The guest's are those of x86-64, as the host's.
import { ConfigError } from "../errors.js";

/** Signals are numbered from 1 to this. */
export const MAX_SIGNAL = 64;

/** signal(7), from 1 on; node:os has them too, and takes 2 ms to load. Of two names of a number, the usual one. */
const STANDARD = [
  ...[
    "HUP",
    "INT",
    "QUIT",
    "ILL",
    "TRAP",
    "ABRT",
    "BUS",
    "FPE",
    "KILL",
    "USR1",
    "SEGV",
    "USR2",
    "PIPE",
    "ALRM",
    "TERM",
  ],
  ...["STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO"],
  ...["PWR", "SYS"],
];
const NUMBERS: ReadonlyMap<string, number> = new Map([
  ...STANDARD.map((name, index) => [`SIG${name}`, index + 1] as const),
  ["SIGIOT", 6],
  ["SIGPOLL", 29],
]);
const NAMES: ReadonlyMap<number, string> = new Map(
  // Later names of a number are its older ones, such as SIGPOLL and SIGIOT.
  [...NUMBERS].toReversed().map(([name, number]) => [number, name]),
);

/** "SIGTERM", "TERM", "15" or 15; throws ConfigError. */
export function signalNumber(signal: string | number): number {
  const text = String(signal).toUpperCase();
  const number = /^\d+$/.test(text) ? Number(text) : (NUMBERS.get(text) ?? NUMBERS.get(`SIG${text}`) ?? realTime(text));
  if (number === undefined || number < 1 || number > MAX_SIGNAL) {
    throw new ConfigError([
      `${String(signal)}: not a signal; it has a name such as SIGTERM, or a number from 1 to ${String(MAX_SIGNAL)}`,
    ]);
  }
  return number;
}

/** "SIGTERM", or "SIGRTMIN+3" where it has no name of its own. */
export function signalName(number: number): string {
  return (
    NAMES.get(number) ??
    (number > RTMIN ? `SIGRTMIN+${String(number - RTMIN)}` : number === RTMIN ? "SIGRTMIN" : `SIG${String(number)}`)
  );
}

/** As programs of a C library see it. */
const RTMIN = 34;

function realTime(text: string): number | undefined {
  const match = /^(?:SIG)?RT(MIN|MAX)([+-]\d+)?$/.exec(text);
  if (match === null) return undefined;
  const number = (match[1] === "MIN" ? RTMIN : MAX_SIGNAL) + Number(match[2] ?? 0);
  return number < RTMIN ? undefined : number;
}
