// The C programs of bench/c, compiled into bench/out when their source is newer.
import { spawnSync } from "node:child_process";
import { mkdirSync, statSync } from "node:fs";
import { join } from "node:path";

const SOURCES = "bench/c";
const OUTPUT = "bench/out";

function modified(path: string): number {
  return statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0;
}

function compile(source: string, output: string, flags: readonly string[]): string {
  const from = join(SOURCES, source);
  const to = join(OUTPUT, output);
  if (modified(to) > modified(from)) return to;
  mkdirSync(OUTPUT, { recursive: true });
  const argv = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", ...flags, "-o", to, from, "-ldl"];
  const { status, stderr, error } = spawnSync("gcc", argv, { encoding: "utf8" });
  if (status !== 0) throw new Error(`gcc cannot compile ${from}: ${error?.message ?? stderr}`);
  return to;
}

/** Path of the compiled bench/c/`name`.c. Throws with the compiler's words. */
export function compileProgram(name: string): string {
  return compile(`${name}.c`, name, []);
}

/** Path of the shared library made of bench/c/`name`.c. */
export function compileLibrary(name: string): string {
  return compile(`${name}.c`, `${name}.so`, ["-shared", "-fPIC"]);
}
