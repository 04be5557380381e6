// The initramfs of the package with the test programs beside it: a static and a dynamic build,
// the latter with its loader and libraries. The kernel unpacks archives that follow each other.
import { execFileSync } from "node:child_process";
import { copyFileSync, mkdirSync, readFileSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";

/** What `exercise` says "ok" of, in this order. */
export const EXERCISES = ["float", "avx", "signals", "threads", "timers", "int3"] as const;

function libraries(program: string): string[] {
  const listed = execFileSync("ldd", [program], { encoding: "utf8" });
  return [...listed.matchAll(/(\/[^ ]+)/g)].map(([, path = ""]) => path);
}

/** Builds /bin/exercise, /bin/exercise-dynamic and /bin/rtc into a copy of guest/out/initramfs.cpio; its path, below `folder`. */
export function buildGuestPrograms(folder: string): string {
  const root = join(folder, "programs");
  mkdirSync(join(root, "bin"), { recursive: true });
  const source = resolve("test/programs/exercise.c");
  const flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-pthread"];
  execFileSync("gcc", [...flags, "-static", "-o", join(root, "bin/exercise"), source, "-lm"]);
  const dynamic = join(root, "bin/exercise-dynamic");
  execFileSync("gcc", [...flags, "-o", dynamic, source, "-lm"]);
  const clock = join(root, "bin/rtc");
  execFileSync("gcc", [...flags, "-static", "-o", clock, resolve("test/programs/rtc.c")]);
  execFileSync("strip", [join(root, "bin/exercise"), dynamic, clock]);
  for (const library of libraries(dynamic)) {
    mkdirSync(join(root, dirname(library)), { recursive: true });
    copyFileSync(realpathSync(library), join(root, library));
  }
  const archive = archiveOf(root);
  rmSync(root, { recursive: true });
  const initramfs = join(folder, "programs.cpio");
  writeFileSync(initramfs, Buffer.concat([readFileSync("guest/out/initramfs.cpio"), archive]));
  return initramfs;
}

/** The package's initramfs with /bin/vsock, in `folder`. */
export function withVsockProgram(folder: string): string {
  return withProgram(folder, "vsock");
}

/** test/programs/vsock.c for the host's side, in `folder`. */
export function buildVsockProgram(folder: string): string {
  const program = join(folder, "vsock-program");
  compile("vsock", program);
  return program;
}

/** The package's initramfs with /bin/share, in `folder`. */
export function withShareProgram(folder: string): string {
  return withProgram(folder, "share");
}

/** The package's initramfs with /bin/dma, in `folder`. */
export function withDmaProgram(folder: string): string {
  return withProgram(folder, "dma");
}

function withProgram(folder: string, name: string): string {
  const root = join(folder, `${name}-root`);
  mkdirSync(join(root, "bin"), { recursive: true });
  compile(name, join(root, "bin", name));
  const image = join(folder, `${name}-initramfs.cpio`);
  writeFileSync(image, Buffer.concat([readFileSync("guest/out/initramfs.cpio"), archiveOf(root)]));
  rmSync(root, { recursive: true });
  return image;
}

function compile(name: string, output: string): void {
  const flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-static", "-s"];
  execFileSync("gcc", [...flags, "-o", output, `test/programs/${name}.c`]);
}

function archiveOf(root: string): Buffer {
  return execFileSync("sh", ["-c", "find . -mindepth 1 | cpio --quiet -o -H newc"], { cwd: root, maxBuffer: 2 ** 26 });
}
