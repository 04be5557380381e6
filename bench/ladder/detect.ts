// How rungs find out whether they are there: a program in the PATH, root rights, a version.
import { spawnSync } from "node:child_process";
import { findProgram } from "../../vmm/host/programs.js";

export type Detection =
  | { readonly version: string }
  | {
      /** Why the rung is not there, for its row. */
      readonly missing: string;
    };

/** First line that holds a digit, or undefined. */
function firstLineOf(path: string, argv: readonly string[]): string | undefined {
  const { stdout, stderr } = spawnSync(path, argv, { encoding: "utf8", timeout: 10_000 });
  return `${stdout}\n${stderr}`.split("\n").find((line) => /\d/.test(line));
}

export function isRoot(): boolean {
  return process.getuid?.() === 0;
}

/** A program that anybody can use. */
export function detectProgram(name: string, debianPackage: string, argv: readonly string[] = ["--version"]): Detection {
  const path = findProgram(name);
  if (path === undefined) return { missing: `${name} is not installed (Debian: ${debianPackage})` };
  return { version: firstLineOf(path, argv)?.trim() ?? "unknown version" };
}

/** A program that only root can use to start something. */
export function detectRootProgram(name: string, debianPackage: string): Detection {
  const found = detectProgram(name, debianPackage);
  return "missing" in found || isRoot() ? found : { missing: "needs root" };
}

/** Absolute path; throws if the program is not there. */
export function program(name: string): string {
  const path = findProgram(name);
  if (path === undefined) throw new Error(`${name} is not installed`);
  return path;
}
