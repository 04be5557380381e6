// The lab's files: the base (built once, cached, by guest/lab/build) and one small read-only
// disk with the files of this run.
import { spawn } from "node:child_process";
import { cpSync, mkdirSync, readdirSync, rmSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { LabError } from "../errors.js";
import type { LabCpu } from "./cpu.js";
import { baseKey, knownBase, rememberBase } from "./known-base.js";
import { ignoringAlike } from "../host/inherited-signals.js";
import { findProgram } from "../host/programs.js";

const BLOCK_BYTES = 4096;

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
  const key = baseKey(packageRoot, cpu);
  let folder = knownBase(key, cpu);
  if (folder === undefined) {
    folder = await buildBase(packageRoot, cpu);
    rememberBase(key, cpu, folder);
  }
  return { folder, kernel: join(folder, "vmlinuz") };
}

async function buildBase(packageRoot: string, cpu: LabCpu): Promise<string> {
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
  return output.trim();
}

function bytesBelow(path: string): number {
  const stat = statSync(path);
  if (!stat.isDirectory()) return Math.ceil(stat.size / BLOCK_BYTES) * BLOCK_BYTES + 512;
  return readdirSync(path).reduce((sum, name) => sum + bytesBelow(join(path, name)), 8192);
}

/** What a saved machine takes the input disk for, whatever is on it: its size is part of the state. */
export const INPUT_DISK_BYTES = 8 * 2 ** 30;

export interface InputDisk {
  readonly path: string;
  /** Resolves once the files are on it; rejects with LabError. It has its size from the beginning. */
  readonly filled: Promise<void>;
}

/**
 * Makes `folder`/input.ext4 with the files; staged in `folder`, which the caller removes. `bytes`: how large it
 * is to be at least, a hole behind the file system.
 */
export function makeInputDisk(folder: string, inputs: readonly LabInput[], bytes = 0): InputDisk {
  const staging = join(folder, "staging");
  mkdirSync(staging, { recursive: true });
  for (const { from, to } of inputs) {
    const target = join(staging, to);
    mkdirSync(dirname(target), { recursive: true });
    cpSync(from, target, { recursive: true, dereference: true });
  }
  const path = join(folder, "input.ext4");
  const blocks = Math.ceil((bytesBelow(staging) * 1.15 + 4 * 2 ** 20) / BLOCK_BYTES);
  writeFileSync(path, "");
  truncateSync(path, Math.max(bytes, blocks * BLOCK_BYTES));
  return { path, filled: fill(path, staging, blocks) };
}

async function fill(path: string, staging: string, blocks: number): Promise<void> {
  const options = ["-q", "-F", "-t", "ext4", "-b", String(BLOCK_BYTES), "-O", "^has_journal", "-m", "0"];
  const more = ["-E", "root_owner=0:0,nodiscard", "-d", staging, path, String(blocks)];
  const child = spawn(findProgram("mke2fs") ?? "mke2fs", [...options, ...more], {
    stdio: ["ignore", "ignore", "pipe"],
  });
  let words = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => (words += text));
  const status = await new Promise<number | null>((resolve) => {
    child.on("error", (error) => {
      words += error.message;
      resolve(null);
    });
    child.on("close", resolve);
  });
  if (status !== 0) throw new LabError(`mke2fs could not make the lab's disk: ${words.trim()}`);
  rmSync(staging, { recursive: true, force: true });
}
