// What engines leave behind: mounts in the run's folder after they were killed, and empty folders of
// state in /run although they are told to use the run's folder.
import { readFileSync, readdirSync, rmdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { tryProgram } from "./run-program.js";

/** A folder with mounts in it must not be removed: that would delete what is mounted there. */
export function unmountBelow(folder: string): void {
  const mounted = readFileSync("/proc/self/mounts", "utf8")
    .split("\n")
    .map((line) => (line.split(" ")[1] ?? "").replaceAll("\\040", " "))
    .filter((at) => at.startsWith(`${folder}/`));
  for (const at of mounted.reverse()) tryProgram("umount", ["--lazy", at]);
}

/** Runtimes make these whatever folder of state they are given. */
const RUN_FOLDERS = ["/run/crun", "/run/runc", "/run/lxc", "/run/libpod"];

function exists(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false }) !== undefined;
}

/** True if nothing but empty folders was in it. */
function removeEmptyTree(folder: string): boolean {
  const isEmpty = readdirSync(folder, { withFileTypes: true })
    .map((entry) => entry.isDirectory() && removeEmptyTree(join(folder, entry.name)))
    .every((gone) => gone);
  if (isEmpty) rmdirSync(folder);
  return isEmpty;
}

/** Remembers what is there now; the result removes empty folders that have come since. */
export function watchRunFolders(): () => void {
  const absent = RUN_FOLDERS.filter((folder) => !exists(folder));
  return () => {
    for (const folder of absent) if (exists(folder)) removeEmptyTree(folder);
  };
}
