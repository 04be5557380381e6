// The launcher, compiled from its source, with a program that says what it sees in the jail (test/programs/jailed.c).
import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { start, type Ended, type Running } from "./program.js";

export const UID = 12_345;
export const GID = 23_456;

const COMPILE = ["-std=gnu11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror"];

/** Key of its line: values, in their order. */
export type Seen = ReadonlyMap<string, readonly string[]>;

export class JailRig {
  /** Everybody may go there. */
  readonly folder = mkdtempSync(join(tmpdir(), "vmlet-jailer-"));
  readonly launcher = join(this.folder, "vmlet-jailer");
  readonly base = join(this.folder, "base");
  /** Static. */
  readonly program = join(this.folder, "jailed");
  readonly dynamic = join(this.folder, "dynamic");

  constructor() {
    const launcher = ['-DNODE_FLAGS="--no-warnings",', '-DJAILER_VERSION="1.9.0"', "vmm/jail/launcher/launcher.c"];
    execFileSync("gcc", [...COMPILE, "-Os", "-static", ...launcher, "-o", this.launcher]);
    execFileSync("gcc", [...COMPILE, "-static", "test/programs/jailed.c", "-o", this.program]);
    execFileSync("gcc", [...COMPILE, "test/programs/jailed.c", "-o", this.dynamic]);
    execFileSync("chmod", ["0755", this.folder]);
    this.reset();
  }

  /** A new base, which this user owns. */
  reset(uid = 0): void {
    rmSync(this.base, { recursive: true, force: true });
    execFileSync("install", ["-d", "-o", String(uid), "-g", String(uid), this.base]);
  }

  /** Options that are needed, unless they are given. */
  words(id: string, options: readonly string[] = [], extra: readonly string[] = []): string[] {
    const usual = { id, "exec-file": this.program, uid: String(UID), gid: String(GID), "chroot-base-dir": this.base };
    const added = Object.entries(usual)
      .filter(([name]) => !options.includes(`--${name}`))
      .flatMap(([name, value]) => [`--${name}`, value]);
    return [this.launcher, ...added, ...options, ...(extra.length > 0 ? ["--", ...extra] : [])];
  }

  run(words: readonly string[]): Ended {
    const [file = "", ...argv] = words;
    const { status, stdout, stderr } = spawnSync(file, argv, { encoding: "utf8", timeout: 20_000 });
    return { status: status ?? -1, stdout, stderr };
  }

  /** Its exit code, whatever goes on with its standard files. */
  exitCode([file = "", ...argv]: readonly string[]): number | null {
    return spawnSync(file, argv, { stdio: "ignore", timeout: 20_000 }).status;
  }

  start(words: readonly string[]): Running {
    return start(words);
  }

  /** A folder of the jail, on this host. */
  root(id: string, program = "jailed"): string {
    return join(this.base, program, id, "root");
  }

  remove(): void {
    rmSync(this.folder, { recursive: true, force: true });
  }
}

export function seen(stdout: string): Seen {
  const found = new Map<string, string[]>();
  for (const line of stdout.split("\n").filter((text) => text !== "")) {
    const at = line.indexOf(": ");
    const values = found.get(line.slice(0, at)) ?? [];
    values.push(line.slice(at + 2));
    found.set(line.slice(0, at), values);
  }
  return found;
}
