// What the probe has found, kept until the host boots again or its KVM modules change: the probe
// makes a VM, which costs milliseconds at every start.
import { existsSync, mkdirSync, readFileSync, readdirSync, renameSync, statSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { cacheFolder } from "./cache-folder.js";
import { VERSION } from "./version.js";

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

/** The remembered result, or that of `probe`. A cache that cannot be used only costs time. */
export function remembered<T>(probe: () => T | undefined): T | undefined {
  const folder = cacheFolder();
  const key = ignoring(hostKey);
  if (folder === undefined || key === undefined) return probe();
  const file = join(folder, "kvm-probe.json");
  const entry = ignoring(() => JSON.parse(readFileSync(file, "utf8")) as Entry<T>);
  if (entry?.key === key) return entry.quirks ?? undefined;
  const quirks = probe();
  ignoring(() => {
    // One level at a time: Node's recursive mkdir never returns where a file system answers ENOENT.
    for (const one of [dirname(folder), folder]) {
      if (!existsSync(one)) mkdirSync(one);
    }
    const own = `${file}.${String(process.pid)}`;
    writeFileSync(own, JSON.stringify({ key, quirks: quirks ?? null } satisfies Entry<T>));
    renameSync(own, file);
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
