// What this process and the monitor of its guest in the lab (vmm/cli/firecracker-in-lab.ts) tell each other: a line of JSON each.
import type { HintingStatus } from "../../devices/virtio/balloon/hinting.js";
import type { ResolvedConfig } from "../config/types.js";
import type { DiskUpdate } from "../machine/device-updates.js";
import type { GuestOutcome, VmStatistics } from "../machine/vm-exit.js";
import type { FailureReport } from "../sdk/monitor-messages.js";

/** Of one line, `characters`: a piece of the console's output or input is far shorter. */
export const MAX_LINE = 2 ** 20;

/** On the monitor's standard input, first and once. */
export interface LabOrder {
  /** With the paths that files have in the lab. */
  readonly config: ResolvedConfig;
}

/** What may be asked of the guest: arguments and answers of each are data. */
export interface LabCalls {
  pause: (asked: null) => void;
  resume: (asked: null) => void;
  updateDisk: (asked: { readonly name: string } & DiskUpdate) => void;
  setBalloon: (asked: { readonly targetMib: number }) => void;
  setBalloonInterval: (asked: { readonly seconds: number }) => void;
  startHinting: (asked: { readonly endsItself: boolean }) => void;
  stopHinting: (asked: null) => void;
  hinting: (asked: null) => HintingStatus;
  statistics: (asked: null) => VmStatistics;
  stop: (asked: null) => void;
  pressCtrlAltDel: (asked: null) => boolean;
}

export type LabCall = keyof LabCalls;

export type ToLab =
  /** The console's input, in base64; the next comes after `room`. */
  { readonly input: string } | { readonly id: number; readonly call: LabCall; readonly asked: unknown };

/** How it ended, and what it has used. */
export interface LabExit extends Pick<VmStatistics, "exits" | "devices"> {
  readonly outcome: GuestOutcome;
  readonly registers?: string | undefined;
}

export type FromLab =
  /** It runs from now on. */
  | { readonly started: true }
  /** The console's output, in base64. */
  | { readonly output: string }
  | { readonly room: true }
  | { readonly initStarted: true }
  | { readonly log: string }
  | { readonly reply: number; readonly value?: unknown; readonly failure?: FailureReport }
  | { readonly ended: LabExit }
  | { readonly failed: FailureReport };

/** Of ASCII alone: a piece of bytes may end anywhere in it. */
export function encodeLine(message: LabOrder | ToLab | FromLab): Buffer {
  const text = JSON.stringify(message).replace(
    /[\x80-\uffff]/g,
    (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
  return Buffer.from(`${text}\n`, "latin1");
}
