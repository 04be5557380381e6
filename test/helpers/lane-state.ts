// How far a process of tests has come: it writes this to a file, so that whoever waits for it can see a test that
// hangs, and keeps the count of what had ended before.
import { readFileSync, renameSync, writeFileSync } from "node:fs";
import type { Counts } from "./counts.js";

export interface LaneState {
  /** Of all tests that have ended, and of those of files that have ended. */
  readonly counts: Counts;
  readonly countsOfEndedFiles: Counts;
  /** What runs now: a test or a hook. */
  readonly running?: RunningTest;
  /** All tests have ended; the process may still have something to wait for. */
  readonly isComplete: boolean;
}

export interface RunningTest {
  /** Absolute. */
  readonly file: string;
  readonly title: string;
  /** When mocha's own limit ends it, unless the event loop does not turn; `ms` since 1970. */
  readonly limitAt: number;
}

/** A reader sees the state before or this one, never a part. */
export function writeLaneState(path: string, state: LaneState): void {
  const next = `${path}.next`;
  writeFileSync(next, JSON.stringify(state));
  renameSync(next, path);
}

/** Undefined until the process has begun. */
export function readLaneState(path: string): LaneState | undefined {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch {
    return undefined;
  }
  return JSON.parse(text) as LaneState;
}
