// What this process sees mounted; proc_pid_mountinfo(5).
import { readFileSync, realpathSync } from "node:fs";

const MOUNT_POINT = 4;

/** Whether something is mounted below the folder, not only at it. `mounts`: as in mountinfo. */
export function hasMountsBelow(folder: string, mounts = readFileSync("/proc/self/mountinfo", "utf8")): boolean {
  const real = realpathSync(folder);
  const prefix = real === "/" ? real : `${real}/`;
  return mounts
    .split("\n")
    .map((line) => unescaped(line.split(" ")[MOUNT_POINT] ?? ""))
    .some((point) => point.length > prefix.length && point.startsWith(prefix));
}

/** Spaces, tabs, line feeds and backslashes are octal there. */
function unescaped(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(parseInt(digits, 8)));
}
