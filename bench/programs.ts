// The C programs of bench/c, compiled into bench/out when their source is newer.
import { execFileSync, spawnSync } from "node:child_process";
import { copyFileSync, mkdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { C_FLAGS, FREESTANDING_FLAGS } from "./c-flags.js";

const SOURCES = "bench/c";
const OUTPUT = "bench/out";
/** The little of a C library that a guest's program needs. */
const GUEST_RUNTIME = "bench/ladder/programs/runtime.c";

function modified(path: string): number {
  return statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0;
}

function compile(sources: readonly string[], output: string, flags: readonly string[]): string {
  const to = join(OUTPUT, output);
  if (sources.every((from) => modified(to) > modified(from))) return to;
  mkdirSync(OUTPUT, { recursive: true });
  const argv = [...C_FLAGS, ...flags, "-o", to, ...sources, "-ldl"];
  const { status, stderr, error } = spawnSync("gcc", argv, { encoding: "utf8" });
  if (status !== 0) throw new Error(`gcc cannot compile ${sources.join(", ")}: ${error?.message ?? stderr}`);
  return to;
}

/** Path of the compiled bench/c/`name`.c. Throws with the compiler's words. */
export function compileProgram(name: string): string {
  return compile([join(SOURCES, `${name}.c`)], name, []);
}

/** Path of the shared library made of bench/c/`name`.c. */
export function compileLibrary(name: string): string {
  return compile([join(SOURCES, `${name}.c`)], `${name}.so`, ["-shared", "-fPIC"]);
}

/** Path of the compiled bench/c/`name`.c, a small static program without a C library. */
export function programOfGuests(name: string): string {
  return compile([join(SOURCES, `${name}.c`), GUEST_RUNTIME], name, FREESTANDING_FLAGS);
}

/** Path of the package's initramfs with that program in /bin. */
export function initramfsWith(name: string): string {
  const program = programOfGuests(name);
  const root = join(OUTPUT, `${name}-root`);
  mkdirSync(join(root, "bin"), { recursive: true });
  copyFileSync(program, join(root, "bin", name));
  const archive = execFileSync("sh", ["-c", "find . -mindepth 1 | cpio --quiet -o -H newc"], { cwd: root });
  const initramfs = join(OUTPUT, `${name}.cpio`);
  // The kernel unpacks archives that follow each other.
  writeFileSync(initramfs, Buffer.concat([readFileSync("guest/out/initramfs.cpio"), archive]));
  return initramfs;
}
