// Images of busybox, as tars, with other programs of this host and the libraries that they need.
import { spawnSync } from "node:child_process";
import { copyFileSync, existsSync, mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";

const BUSYBOX = "/bin/busybox";
const COMPILE_LIMIT_MS = 60_000;

export function whyNoBusybox(): string | undefined {
  return existsSync(BUSYBOX) ? undefined : "busybox-static is not installed";
}

/** Compiles a program of test/programs without libraries, into `folder`. The same each time. */
export function compileProgram(folder: string, name: string): string {
  const target = join(folder, name);
  const words = ["-O2", "-Wall", "-Wextra", "-Werror", "-static", "-s", "-o", target, `test/programs/${name}.c`];
  const { status, stderr } = spawnSync("gcc", words, { timeout: COMPILE_LIMIT_MS });
  if (status !== 0) throw new Error(String(stderr));
  return target;
}

/** A folder in `folder` with busybox under all of its names. */
export function busyboxTree(folder: string): string {
  const root = join(folder, "root");
  for (const name of ["bin", "etc", "tmp"]) mkdirSync(join(root, name), { recursive: true });
  copyFileSync(BUSYBOX, join(root, "bin/busybox"));
  const applets = spawnSync(BUSYBOX, ["--list"], { encoding: "utf8", timeout: COMPILE_LIMIT_MS })
    .stdout.trim()
    .split("\n");
  for (const name of applets) if (name !== "busybox") symlinkSync("busybox", join(root, "bin", name));
  writeFileSync(join(root, "etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n");
  return root;
}

/**
 * The path of the tar; what is made for it is in `folder`. `programs`: paths, of which those that are missing are left out.
 * `own`: files for its /bin.
 */
export function makeBusyboxImage(
  folder: string,
  programs: readonly string[] = [],
  own: readonly string[] = [],
): string {
  const root = busyboxTree(folder);
  for (const program of programs.filter((path) => existsSync(path))) {
    const libraries = spawnSync("ldd", [program], { encoding: "utf8" }).stdout.match(/\/\S+/g) ?? [];
    for (const path of [program, ...libraries]) {
      mkdirSync(dirname(join(root, path)), { recursive: true });
      copyFileSync(path, join(root, path));
    }
  }
  for (const path of own) copyFileSync(path, join(root, "bin", basename(path)));
  const image = join(folder, "image.tar");
  // The same each time, so that its template is, too.
  const same = ["--sort=name", "--mtime=@0", "--numeric-owner", "--owner=0", "--group=0", "--mode=a+rX,u+w,go-w"];
  const { status, stderr } = spawnSync("tar", ["-C", root, ...same, "-cf", image, "."]);
  if (status !== 0) throw new Error(String(stderr));
  return image;
}
