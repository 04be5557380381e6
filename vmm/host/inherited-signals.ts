// The signals that this program was told to ignore when it was started: by nohup, by a shell that
// runs it in the background. Node gives every signal its default action while it starts, so that only
// the first line of dist/vmlet.js, which a shell reads, can still see them.

interface Environment {
  /** Set by that line: SigIgn of /proc/self/status, 64 bits in hexadecimal. */
  VMLET_SIGIGN?: string | undefined;
}

const SIGHUP = 1;
const SIGINT = 2;
const SIGQUIT = 3;
const SIGTERM = 15;
/** Ignored by Node itself, which then sees EPIPE and EFBIG. */
const SIGPIPE = 13;
const SIGXFSZ = 25;
/** Node needs it to learn that a child has ended. */
const SIGCHLD = 17;
/** The C library's own: posix_spawn(3) leaves them ignored in what it starts, and sigaction(3) refuses them. */
const RESERVED: readonly number[] = [32, 33];

/** Numbers of the signals; the variable is taken away, as it says nothing about a program started from here. */
export function readIgnored(environment: Environment = process.env): ReadonlySet<number> {
  const text = environment.VMLET_SIGIGN ?? "";
  delete environment.VMLET_SIGIGN;
  // Nearly always, and not worth 64 large numbers.
  if (/^0*$/.test(text)) return new Set();
  const mask = /^[0-9a-f]{1,16}$/.test(text) ? BigInt(`0x${text}`) : 0n;
  const numbers = Array.from({ length: 64 }, (_, index) => index + 1);
  const isIgnored = (number: number): boolean => ((mask >> BigInt(number - 1)) & 1n) === 1n;
  return new Set(numbers.filter((number) => isIgnored(number) && !RESERVED.includes(number)));
}

const ignored = readIgnored();

export function wasIgnored(signal: number): boolean {
  return ignored.has(signal);
}

/** Those that this program has to ignore again. */
export function toIgnoreAgain(): number[] {
  return [...ignored].filter((signal) => ![SIGPIPE, SIGXFSZ, SIGCHLD].includes(signal));
}

/**
 * The command, started so that it ignores what this program was told to ignore: Node gives the
 * programs that it starts the default actions, and a `make` under nohup would die without us.
 */
export function ignoringAlike(command: readonly string[]): readonly string[] {
  const names: readonly (readonly [number, string])[] = [
    [SIGHUP, "HUP"],
    [SIGINT, "INT"],
    [SIGQUIT, "QUIT"],
    [SIGTERM, "TERM"],
  ];
  const given = names.filter(([signal]) => ignored.has(signal)).map(([, name]) => name);
  return given.length === 0 ? command : ["sh", "-c", `trap '' ${given.join(" ")}; exec "$@"`, "sh", ...command];
}
