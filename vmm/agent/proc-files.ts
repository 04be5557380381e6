// Files of a guest's /proc, proc(5). The guest may write there what it likes: what cannot be read is left out.
import { shown } from "./guest-bytes.js";

export interface GuestProcessInfo {
  readonly pid: number;
  readonly parent: number;
  /** As the kernel has it, at most 15 characters. */
  readonly name: string;
  /** R, S, D, Z, T and so on. */
  readonly state: string;
  readonly uid: number;
  /** Empty for threads of the kernel. */
  readonly command: readonly string[];
  readonly residentBytes: number;
  /** In user and kernel mode, `ms`. */
  readonly cpuMs: number;
}

export interface GuestMemory {
  readonly totalBytes: number;
  readonly freeBytes: number;
  /** What programs could still have. */
  readonly availableBytes: number;
  readonly cachedBytes: number;
}

const KIB = 1024;
/** USER_HZ is 100 on x86. */
const TICK_MS = 10;

/** Undefined where the files are not those of a process. */
export function parseProcess(pid: number, stat: Buffer, status: Buffer, cmdline: Buffer): GuestProcessInfo | undefined {
  // "42 (name) S 1 …", and a name may hold anything, brackets too.
  const text = stat.toString("latin1");
  const begin = text.indexOf("(");
  const end = text.lastIndexOf(")");
  const fields = text.slice(end + 2).split(" ");
  const [state, parent] = fields;
  const uid = numberOf(/^Uid:\s+(\d+)/m.exec(status.toString("latin1"))?.[1]);
  if (begin < 0 || end < begin || state === undefined || !/^[A-Za-z]$/.test(state)) return undefined;
  const words = cmdline.toString("utf8").split("\0");
  if (words.at(-1) === "") words.pop();
  return {
    pid,
    parent: numberOf(parent),
    name: shown(Buffer.from(text.slice(begin + 1, end), "latin1")),
    state,
    uid,
    command: words,
    residentBytes: numberOf(/^VmRSS:\s+(\d+)/m.exec(status.toString("latin1"))?.[1]) * KIB,
    // utime and stime, fields 14 and 15 of proc(5).
    cpuMs: (numberOf(fields[11]) + numberOf(fields[12])) * TICK_MS,
  };
}

export function parseMemory(text: string): GuestMemory {
  const of = (name: string): number => numberOf(new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(text)?.[1]) * KIB;
  return {
    totalBytes: of("MemTotal"),
    freeBytes: of("MemFree"),
    availableBytes: of("MemAvailable"),
    cachedBytes: of("Cached"),
  };
}

function numberOf(text: string | undefined): number {
  const value = Number(text ?? 0);
  return Number.isSafeInteger(value) && value >= 0 ? value : 0;
}
