// How a VM ended and what it took, as plain data.
import type { ConsoleWatcher } from "./console-watcher.js";
import type { BalloonReport } from "../virtio/device-host.js";
import type { Counters } from "../../devices/virtio/device.js";
import { FIXUP_NAMES } from "../fixups/fixup.js";
import { exitKey } from "../vcpu/exit-names.js";
import {
  MILESTONE_COMMAND_END,
  MILESTONE_COMMAND_START,
  MILESTONE_FIRST_RUN,
  MILESTONE_INIT,
  type VmShared,
} from "../vcpu/shared.js";

/** How the guest ended. */
export type GuestOutcome = "poweroff" | "reboot" | "panic" | "triple-fault" | "halted" | "killed";

/** `ns` of CLOCK_MONOTONIC, undefined where the guest never got there. */
export interface Milestones {
  readonly firstRun: bigint | undefined;
  readonly init: bigint | undefined;
  readonly commandStart: bigint | undefined;
  readonly commandEnd: bigint | undefined;
  readonly end: bigint;
}

/** What a VM has used so far. */
export interface VmStatistics {
  /** Returns of KVM_RUN by reason ("io", "mmio", …); reasons that never came are left out. */
  readonly exits: Readonly<Record<string, number>>;
  /** What each virtio device has done, by name ("vda"). */
  readonly devices: Readonly<Record<string, Counters>>;
  /** Undefined without a balloon. */
  readonly balloon: BalloonReport | undefined;
}

export interface VmExit extends Omit<VmStatistics, "balloon"> {
  readonly outcome: GuestOutcome;
  /** What the guest's init reported, 0 to 255. */
  readonly exitStatus: number | undefined;
  readonly milestones: Milestones;
  /** Instructions that the monitor did by hand, by name; only a software KVM needs any. */
  readonly fixups: Readonly<Record<string, number>>;
  /** Registers at a triple fault, if the thread that saw it could read them. */
  readonly registers: string | undefined;
}

export function exitsByReason(shared: VmShared): Record<string, number> {
  const exits: Record<string, number> = {};
  shared.totalExits().forEach((count, reason) => {
    if (count > 0) exits[exitKey(reason)] = count;
  });
  return exits;
}

export function reportExit(
  shared: VmShared,
  console: ConsoleWatcher,
  registers: string | undefined,
  devices: Readonly<Record<string, Counters>>,
): VmExit {
  const totals = shared.totalFixups();
  const fixups = Object.fromEntries(
    FIXUP_NAMES.map((name, i) => [name, totals[i] ?? 0] as const).filter(([, count]) => count > 0),
  );
  const outcome = shared.outcome;
  return {
    outcome: nameOutcome(outcome === "running" || outcome === "failed" ? "killed" : outcome, console),
    exitStatus: shared.exitStatus,
    milestones: {
      firstRun: shared.milestone(MILESTONE_FIRST_RUN),
      init: shared.milestone(MILESTONE_INIT),
      commandStart: shared.milestone(MILESTONE_COMMAND_START),
      commandEnd: shared.milestone(MILESTONE_COMMAND_END),
      end: process.hrtime.bigint(),
    },
    exits: exitsByReason(shared),
    fixups,
    devices,
    registers,
  };
}

function nameOutcome(outcome: GuestOutcome, { sawPanic, sawHalt }: ConsoleWatcher): GuestOutcome {
  // A kernel that panics ends in a reset, a triple fault or a halt: the panic is the news.
  const isAbrupt = outcome === "reboot" || outcome === "triple-fault" || outcome === "halted";
  if (sawPanic && isAbrupt) return "panic";
  // Linux without ACPI halts when it is told to power off.
  return sawHalt && outcome === "halted" ? "poweroff" : outcome;
}
