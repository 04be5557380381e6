// The state file of a snapshot, taken apart and put together again.
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { State } from "../../devices/state.js";
import { encodeState } from "../../vmm/snapshot/state-file.js";

/** As much of it as tests change. */
export interface SavedState {
  readonly host: { software: boolean };
  readonly vcpus: readonly {
    readonly sregs: Record<string, string | object>;
    readonly debugregs: Record<string, string>;
    readonly events: Record<string, number | string>;
    readonly xcrs: Record<string, string>;
    readonly msrs: Record<string, string>;
    xsave: string;
    readonly cpuid: Record<"function" | "index" | "eax" | "ebx" | "ecx" | "edx", number>[];
  }[];
}

export function savedState(folder: string): SavedState {
  const file = readFileSync(join(folder, "state.json"), "utf8");
  return JSON.parse(file.slice(file.indexOf("\n") + 1)) as SavedState;
}

/** With the right length and checksum: as one who means harm would write it. */
export function putState(folder: string, state: unknown): void {
  writeFileSync(join(folder, "state.json"), encodeState(state as State));
}
