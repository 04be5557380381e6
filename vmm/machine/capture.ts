// A paused VM, taken apart: what goes into the state of a snapshot, and where its memory is.
import type { State, StateValue } from "../../devices/state.js";
import type { ResolvedConfig } from "../config/types.js";
import type { Quirks } from "../fixups/quirks.js";
import { KvmSystem } from "../kvm/system.js";
import { captureVcpu, xsaveBytes } from "../kvm/vcpu-state.js";
import { captureVm as captureVmFd } from "../kvm/vm-state.js";
import type { CommandPages } from "../memory/command-pages.js";
import type { MappedGuestMemory } from "../memory/guest-memory.js";
import type { KernelFormat } from "../x86/kernel.js";
import type { LiveParts } from "./builder.js";
import type { SavedMachine } from "./create.js";
import { saveLegacy } from "./legacy-state.js";
import type { VmRun } from "./vm-run.js";

export interface Capture {
  readonly config: ResolvedConfig;
  readonly quirks: Quirks | undefined;
  readonly kernelFormat: KernelFormat;
  readonly machine: SavedMachine;
  readonly legacy: State;
  readonly devices: State;
  /** Of the command's channel; null without one. */
  readonly channel: StateValue;
  readonly memory: MappedGuestMemory;
  readonly command: CommandPages | undefined;
  /** What the memory was mapped from; none if it began as zeroes. */
  readonly memoryFiles: readonly number[];
}

/** The vCPUs rest and the devices are quiet. */
export function captureVm(parts: LiveParts, run: VmRun): Capture {
  const { config, quirks, kernelFormat, memory, command, vm, vcpus, cpuids, saved } = parts;
  return {
    config,
    quirks,
    kernelFormat,
    machine: captureMachine(),
    legacy: saveLegacy(run.machine.shared),
    devices: run.devices?.save() ?? {},
    channel: run.command?.save() ?? null,
    memory,
    command,
    memoryFiles: saved?.source.files ?? [],
  };

  function captureMachine(): SavedMachine {
    const system = KvmSystem.open();
    try {
      const msrIndices = system.msrIndices();
      const xsave = xsaveBytes(system);
      // The clock before the counters: a clock that lags behind them a little is what a guest may see.
      const vmState = captureVmFd(vm);
      const states = vcpus.map((vcpu, index) =>
        captureVcpu(vcpu, { cpuid: cpuids[index] ?? [], msrIndices, xsaveBytes: xsave }),
      );
      return { vm: vmState, vcpus: states };
    } finally {
      system.close();
    }
  }
}
