// Arguments as the bytes that they are. Node decodes them as UTF-8 and puts U+FFFD for what is not, which cannot be
// undone; the kernel still has them.
import { readFileSync } from "node:fs";
import { UsageError } from "./usage-error.js";

const REPLACEMENT = "\ufffd";

/** Each word's bytes. `words` are the last of this process's arguments; `cmdline` is what /proc/self/cmdline has. */
export function argumentBytes(words: readonly string[], cmdline = readCmdline): Buffer[] {
  if (!words.some((word) => word.includes(REPLACEMENT))) return words.map((word) => Buffer.from(word));
  const all: Buffer[] = [];
  const bytes = cmdline();
  for (let at = 0, end = bytes.indexOf(0); end >= 0; at = end + 1, end = bytes.indexOf(0, at)) {
    all.push(bytes.subarray(at, end));
  }
  const own = all.slice(all.length - words.length);
  // Somebody may have changed the process's title, or started it without a /proc.
  const isSame = own.length === words.length && own.every((word, i) => word.toString("utf8") === words[i]);
  if (!isSame) throw new UsageError("The arguments are not UTF-8, and /proc/self/cmdline does not have their bytes");
  return own;
}

/** Throws UsageError for an option that is not UTF-8: a file of that name could not be opened. */
export function refuseOtherThanUtf8(argv: readonly string[], cmdline = readCmdline): void {
  const end = argv.indexOf("--");
  const options = end < 0 ? argv : argv.slice(0, end);
  if (!options.some((word) => word.includes(REPLACEMENT))) return;
  const wrong = argumentBytes(argv, cmdline)
    .slice(0, options.length)
    .find((bytes, i) => !bytes.equals(Buffer.from(options[i] ?? "")));
  if (wrong !== undefined) {
    const shown = wrong.toString("latin1").replace(/[^\x20-\x7e]/g, (character) => `\\x${hex(character)}`);
    throw new UsageError(`${shown}: not UTF-8; only the words after -- may be any bytes`);
  }
}

function hex(character: string): string {
  return character.charCodeAt(0).toString(16).padStart(2, "0");
}

function readCmdline(): Buffer {
  try {
    return readFileSync("/proc/self/cmdline");
  } catch {
    return Buffer.alloc(0);
  }
}
