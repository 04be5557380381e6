// The lab's files: the base (built once, cached, by guest/lab/build) and one small read-only
// disk with the files of this run.
import { spawn, spawnSync } from "node:child_process";
import { cpSync, mkdirSync, readdirSync, rmSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { LabError } from "../errors.js";
import type { LabCpu } from "./cpu.js";
import { ignoringAlike } from "../host/inherited-signals.js";
import { findProgram } from "../host/programs.js";

export interface LabBase {
  /** Holds what guest/lab/build says. */
  readonly folder: string;
  /** Debian's bzImage. */
  readonly kernel: string;
}

/** A file or folder of this host and where it appears below /input in the lab. */
export interface LabInput {
  readonly from: string;
  readonly to: string;
}

/** Builds the base if the cache does not have it; its progress goes to standard error. */
export async function labBase(packageRoot: string, cpu: LabCpu = "amd"): Promise<LabBase> {
  const script = join(packageRoot, "guest/lab/build");
  const [file = script, ...argv] = ignoringAlike([script, process.execPath, cpu]);
  const child = spawn(file, argv, { stdio: ["ignore", "pipe", "inherit"] });
  let output = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => (output += text));
  const code = await new Promise<number | null>((resolve, reject) => {
    child.on("error", reject);
    child.on("close", resolve);
  });
  if (code !== 0) throw new LabError("The lab could not be built; the lines above say why");
  const folder = output.trim();
  return { folder, kernel: join(folder, "vmlinuz") };
}

function bytesBelow(path: string): number {
  const stat = statSync(path);
  if (!stat.isDirectory()) return Math.ceil(stat.size / 4096) * 4096 + 512;
  return readdirSync(path).reduce((sum, name) => sum + bytesBelow(join(path, name)), 8192);
}

/** What a saved machine takes the input disk for, whatever is on it: its size is part of the state. */
export const INPUT_DISK_BYTES = 8 * 2 ** 30;

/** Makes `folder`/input.ext4 with the files; staged in `folder`, which the caller removes. */
export function makeInputDisk(folder: string, inputs: readonly LabInput[]): string {
  const staging = join(folder, "staging");
  mkdirSync(staging, { recursive: true });
  for (const { from, to } of inputs) {
    const target = join(staging, to);
    mkdirSync(dirname(target), { recursive: true });
    cpSync(from, target, { recursive: true, dereference: true });
  }
  const disk = join(folder, "input.ext4");
  const size = Math.ceil((bytesBelow(staging) * 1.15 + 4 * 2 ** 20) / 4096) * 4096;
  writeFileSync(disk, "");
  truncateSync(disk, size);
  const mke2fs = findProgram("mke2fs") ?? "mke2fs";
  const result = spawnSync(
    mke2fs,
    ["-q", "-F", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-E", "root_owner=0:0,nodiscard", "-d", staging, disk],
    { encoding: "utf8" },
  );
  rmSync(staging, { recursive: true, force: true });
  if (result.status !== 0) throw new LabError(`mke2fs could not make the lab's disk: ${result.stderr.trim()}`);
  // Behind the file system there is a hole; a machine that boots takes any size.
  if (size < INPUT_DISK_BYTES) truncateSync(disk, INPUT_DISK_BYTES);
  return disk;
}
