// Which base guest/lab/build has named, remembered for as long as nothing has changed that it looks at: asking apt
// takes a second. The memory lies beside the bases, lab/known-CPU.json.
import { createHash } from "node:crypto";
import { existsSync, lstatSync, readFileSync, readdirSync, renameSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { cacheFolder } from "../host/cache-folder.js";
import { findProgram } from "../host/programs.js";
import type { LabCpu } from "./cpu.js";

/** Where apt and dpkg say which kernel there is; folders change their time with what is in them. */
const PACKAGE_STATE = [
  "/etc/apt",
  "/etc/apt/preferences.d",
  "/etc/apt/sources.list",
  "/etc/apt/sources.list.d",
  "/var/lib/apt/lists",
  "/var/lib/dpkg/status",
];
const WRITABLE_BY_OTHERS = 0o022;

interface Known {
  readonly key: string;
  readonly folder: string;
}

/** Changes with all that guest/lab/build looks at. */
export function baseKey(packageRoot: string, cpu: LabCpu): string {
  const sources = ["guest/lab", "guest/init", "guest/init/agent"].map((folder) => join(packageRoot, folder));
  const files = [
    ...PACKAGE_STATE,
    process.execPath,
    ...["qemu-system-x86_64", "busybox"].map((name) => findProgram(name) ?? name),
  ];
  const hash = createHash("sha256").update(`${cpu} ${String(cacheFolder())}\n`);
  for (const file of files) hash.update(`${file} ${times(file)}\n`);
  for (const folder of sources) {
    const files = readdirSync(folder, { withFileTypes: true }).filter((entry) => entry.isFile());
    for (const { name } of files.sort((a, b) => (a.name < b.name ? -1 : 1)))
      hash.update(readFileSync(join(folder, name)));
  }
  return hash.digest("hex");
}

function times(file: string): string {
  const stat = statSync(file, { bigint: true, throwIfNoEntry: false });
  return stat === undefined ? "not there" : `${String(stat.size)} ${String(stat.mtimeNs)} ${String(stat.ctimeNs)}`;
}

function memory(cpu: LabCpu): string | undefined {
  const cache = cacheFolder();
  return cache === undefined ? undefined : join(cache, `lab/known-${cpu}.json`);
}

/** The folder of the base, if it is known and still there. */
export function knownBase(key: string, cpu: LabCpu): string | undefined {
  const file = memory(cpu);
  try {
    if (file === undefined) return undefined;
    const stat = lstatSync(file);
    const isOurs = stat.uid === process.geteuid?.() || stat.uid === 0;
    if (!stat.isFile() || !isOurs || (stat.mode & WRITABLE_BY_OTHERS) !== 0) return undefined;
    const known = JSON.parse(readFileSync(file, "utf8")) as Partial<Known>;
    return known.key === key && known.folder !== undefined && existsSync(join(known.folder, "complete"))
      ? known.folder
      : undefined;
  } catch {
    // There is none, or none that can be read: apt is asked.
    return undefined;
  }
}

export function rememberBase(key: string, cpu: LabCpu, folder: string): void {
  const file = memory(cpu);
  if (file === undefined) return;
  const own = `${file}.${String(process.pid)}`;
  try {
    writeFileSync(own, JSON.stringify({ key, folder } satisfies Known), { mode: 0o600 });
    renameSync(own, file);
  } catch {
    // A cache that cannot be written to costs the second again.
  }
}
