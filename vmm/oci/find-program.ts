// Whether a container's program is there, looked for on the host by `create`: engines want to hear of it then, as podman hears
// nothing of what `start` says. Where a mount or /proc decides, the guest does.
import { lstatSync, readlinkSync, statSync, type Stats } from "node:fs";
import { isAbsolute, join, posix } from "node:path";
import { ConfigError } from "../errors.js";
import { execFailure } from "./exec-failure.js";
import { mayChangeFiles } from "./hooks.js";
import type { OciSpec } from "./runtime-spec.js";

/** path_resolution(7) */
const MAX_LINKS = 40;
const ANY_EXECUTE = 0o111;

/** What stands at a path: undefined: nothing; "unknown": only the guest can tell. */
type Found = Stats | "unknown" | undefined;

/** Throws ConfigError for a program that is certainly not there, or no program. */
export function checkProgram(spec: OciSpec, rootfs: string): void {
  const found = search(spec, rootfs);
  if (!("errno" in found)) return;
  const [name = ""] = spec.process?.args ?? [];
  throw new ConfigError([execFailure(name, found.errno, found.isFolder) ?? found.errno]);
}

/** The program's file, links followed; undefined where only the guest can tell. */
export function programFile(spec: OciSpec, rootfs: string): Stats | undefined {
  const found = search(spec, rootfs);
  return "file" in found ? found.file : undefined;
}

type Search =
  { readonly file: Stats | undefined } | { readonly errno: "ENOENT" | "EACCES"; readonly isFolder: boolean };

function search({ process, mounts = [], hooks }: OciSpec, rootfs: string): Search {
  const [name = ""] = process?.args ?? [];
  const cwd = process?.cwd ?? "/";
  if (name === "" || mayChangeFiles(hooks)) return { file: undefined };
  const covered = mounts.map(({ destination }) => posix.join("/", destination));
  const candidates = name.includes("/") ? [posix.resolve(cwd, name)] : inPath(name, process?.env ?? []);
  if (candidates === undefined) return { file: undefined };
  let refusal: Search = { errno: "ENOENT", isFolder: false };
  for (const path of candidates) {
    const found = inRoot(rootfs, path, covered);
    if (found === "unknown") return { file: undefined };
    if (found === undefined) continue;
    if (found.isFile() && (found.mode & ANY_EXECUTE) !== 0) return { file: found };
    // A shell goes on looking for another, and remembers this one.
    if (name.includes("/") || !found.isDirectory()) refusal = { errno: "EACCES", isFolder: found.isDirectory() };
  }
  return refusal;
}

/** Undefined where the program's own search decides. */
function inPath(name: string, env: readonly string[]): string[] | undefined {
  const path = env
    .filter((variable) => variable.startsWith("PATH="))
    .at(-1)
    ?.slice("PATH=".length);
  const folders = path?.split(":") ?? [];
  if (folders.length === 0 || !folders.every(isAbsolute)) return undefined;
  return folders.map((folder) => posix.join(folder, name));
}

/** With links as the container sees them. */
function inRoot(rootfs: string, path: string, covered: readonly string[]): Found {
  const rest = path.split("/").filter(Boolean);
  let at = "/";
  for (let links = 0; ;) {
    // A mount's place need not be there yet.
    if (isCovered(posix.join(at, ...rest), covered)) return "unknown";
    const name = rest.shift();
    if (name === undefined) return statSync(join(rootfs, at), { throwIfNoEntry: false });
    const next = posix.join(at, name);
    const stat = looked(join(rootfs, next));
    if (stat === undefined || stat === "unknown") return stat;
    if (!stat.isSymbolicLink()) {
      at = next;
      continue;
    }
    if (++links > MAX_LINKS) return "unknown";
    const target = readlinkSync(join(rootfs, next));
    rest.unshift(...target.split("/").filter(Boolean));
    if (target.startsWith("/")) at = "/";
  }
}

function isCovered(path: string, mounts: readonly string[]): boolean {
  return mounts.some((mount) => path === mount || path.startsWith(mount.endsWith("/") ? mount : `${mount}/`));
}

function looked(path: string): Found {
  try {
    return lstatSync(path, { throwIfNoEntry: false });
  } catch {
    // Below a file, or too long.
    return "unknown";
  }
}
