// Files of the kernel's that are opened while that can be done, and read when somebody asks: what is in them is made when it is read.
import { closeSync, openSync, readFileSync } from "node:fs";

const kept = new Map<string, number>();

/** For a process that opens nothing later. Throws as openSync does. */
export function keepFile(path: string): void {
  kept.set(path, openSync(path, "r"));
}

/** The same for some. What cannot be opened is as it would be then. */
export function keepFiles(paths: readonly string[]): void {
  for (const path of paths) {
    try {
      keepFile(path);
    } catch {
      // Whoever asks for it meets the reason.
    }
  }
}

/** Its descriptor, which stays open; undefined if it is not kept. */
export function keptFile(path: string): number | undefined {
  return kept.get(path);
}

/** What `use` makes of it, which reads at places that it names. Throws as openSync and `use` do. */
export function withFile<Result>(path: string, use: (fd: number) => Result): Result {
  const open = kept.get(path);
  const fd = open ?? openSync(path, "r");
  try {
    return use(fd);
  } finally {
    if (open === undefined) closeSync(fd);
  }
}

/** All of it; one that is kept, once. Throws as readFileSync does. */
export function readKept(path: string): string {
  return withFile(path, (fd) => readFileSync(fd, "latin1"));
}
