// A file beside what only one process may make at a time, locked for as long as it is open.
import { closeSync, openSync } from "node:fs";
import { lockByteExclusive } from "../sys/locks.js";
import { attempt } from "./folder.js";

const PRIVATE_FILE = 0o600;
/** How often to look whether somebody else has made it, `ms`. */
const LOOK_MS = 10;

/** Of what lies at `path`. */
export function lockFile(path: string): string {
  return `${path}.lock`;
}

/** A descriptor to be closed; undefined if somebody else has the lock. Throws SnapshotError if there can be no such file. */
export function tryLock(path: string): number | undefined {
  const file = lockFile(path);
  const fd = attempt(file, () => openSync(file, "a", PRIVATE_FILE));
  if (lockByteExclusive(fd, 0)) return fd;
  closeSync(fd);
  return undefined;
}

/** The same once nobody else has it. Rejects with the reason of the signal. */
export async function waitForLock(path: string, signal?: AbortSignal): Promise<number> {
  for (;;) {
    signal?.throwIfAborted();
    const fd = tryLock(path);
    if (fd !== undefined) return fd;
    await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
  }
}
