// What the benches of containers and of programs in VMs share: an image of Debian's static busybox, and whole processes by the clock.
import { execFileSync, spawnSync } from "node:child_process";
import { copyFileSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { findProgram } from "../../vmm/host/programs.js";
import type { Variant } from "../harness.js";

const BUSYBOX = "/bin/busybox";
export const WALL = "whole_process_ms";
/** Of a boot; of a template; of a program's template; a run. */
const WARM_UPS = 4;

/** A tree in `folder`. */
export function makeRoot(folder: string, applets: readonly string[]): string {
  const root = join(folder, "root");
  for (const name of ["bin", "etc", "proc", "sys", "dev", "tmp"]) mkdirSync(join(root, name), { recursive: true });
  copyFileSync(BUSYBOX, join(root, "bin/busybox"));
  for (const name of applets) symlinkSync("busybox", join(root, "bin", name));
  return root;
}

/** Throws for a program that fails, with what it says. */
export function wallMs(argv: readonly string[]): number {
  const [program = "", ...words] = argv;
  const began = performance.now();
  const { status, stderr } = spawnSync(program, words, { encoding: "utf8", stdio: ["ignore", "ignore", "pipe"] });
  const ms = performance.now() - began;
  if (status !== 0) throw new Error(`${program} has ended with ${String(status)}: ${stderr}`);
  return ms;
}

export function wholeProcess(name: string, argv: (round: number) => readonly string[]): Variant {
  let round = 0;
  const turn = (): { [WALL]: number } => ({ [WALL]: wallMs(argv(round++)) });
  for (let warmUp = 0; warmUp < WARM_UPS; warmUp++) turn();
  return { name, turn };
}

/** `runc run` of `true` in the tree. */
export function runcVariant(name: string, folder: string, root: string): Variant {
  if (findProgram("runc") === undefined) {
    return { name, turn: () => Promise.reject(new Error("runc is not installed")) };
  }
  const bundle = join(folder, "bundle");
  mkdirSync(bundle);
  execFileSync("runc", ["spec"], { cwd: bundle });
  const path = join(bundle, "config.json");
  const config = JSON.parse(readFileSync(path, "utf8")) as {
    process: { terminal: boolean; args: string[] };
    root: { path: string };
  };
  config.process.terminal = false;
  config.process.args = ["true"];
  config.root.path = root;
  writeFileSync(path, JSON.stringify(config));
  return wholeProcess(name, (round) => ["runc", "run", "--bundle", bundle, `vmlet-bench-${String(round)}`]);
}
