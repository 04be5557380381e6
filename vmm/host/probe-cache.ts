// What the probe has found, kept until the host boots again or its KVM modules change: the probe
// makes a VM, which costs milliseconds at every start.
import {
  closeSync,
  constants,
  existsSync,
  fstatSync,
  mkdirSync,
  openSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { cacheFolder } from "./cache-folder.js";
import { VERSION } from "./version.js";

/** More than is ever written, `bytes`. */
const MAX_BYTES = 65_536;

interface Entry<T> {
  readonly key: string;
  /** null: this KVM leaves nothing to the monitor. */
  readonly quirks: T | null;
}

/** Changes with the host's boot and every load of a KVM module. */
function hostKey(): string {
  const boot = readFileSync("/proc/sys/kernel/random/boot_id", "latin1").trim();
  const modules = readdirSync("/sys/module")
    .filter((name) => name.startsWith("kvm"))
    .map((name) => `${name}@${String(statSync(`/sys/module/${name}`).ino)}`);
  return [VERSION, boot, String(statSync("/dev/kvm").ino), ...modules].join(" ");
}

/** The text of a file that nobody but this user (or root) can have written; undefined for any other. */
function readOwn(file: string): string | undefined {
  const fd = openSync(file, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  try {
    const stat = fstatSync(fd);
    const isOurs = stat.uid === process.geteuid?.() || stat.uid === 0;
    const isSound = stat.isFile() && isOurs && (stat.mode & 0o022) === 0 && stat.size <= MAX_BYTES;
    return isSound ? readFileSync(fd, "utf8") : undefined;
  } finally {
    closeSync(fd);
  }
}

/**
 * The remembered result, or that of `probe`. A cache that cannot be used only costs time, and so does one
 * whose words are no result (`isResult`) or may be somebody else's.
 */
export function remembered<T>(probe: () => T | undefined, isResult: (value: unknown) => value is T): T | undefined {
  const folder = cacheFolder();
  const key = ignoring(hostKey);
  if (folder === undefined || key === undefined) return probe();
  const file = join(folder, "kvm-probe.json");
  const entry = ignoring(() => JSON.parse(readOwn(file) ?? "null") as Partial<Entry<unknown>> | null);
  if (entry?.key === key) {
    if (entry.quirks === null) return undefined;
    if (isResult(entry.quirks)) return entry.quirks;
  }
  const quirks = probe();
  ignoring(() => {
    // One level at a time: Node's recursive mkdir never returns where a file system answers ENOENT.
    for (const one of [dirname(folder), folder]) {
      if (!existsSync(one)) mkdirSync(one);
    }
    // One name: of processes that are killed on the way, one such file stays at most. Of two at a time one may fail, and nothing is lost.
    const unfinished = `${file}.new`;
    rmSync(unfinished, { force: true });
    writeFileSync(unfinished, JSON.stringify({ key, quirks: quirks ?? null } satisfies Entry<T>), {
      flag: "wx",
      mode: 0o600,
    });
    renameSync(unfinished, file);
  });
  return quirks;
}

/** Undefined if the file system refuses: a read-only home or a missing /sys must not stop vmlet. */
function ignoring<T>(action: () => T): T | undefined {
  try {
    return action();
  } catch {
    return undefined;
  }
}
