// A paused VM, taken apart: what goes into the state of a snapshot, and where its memory is.
import type { State, StateValue } from "../../devices/state.js";
import type { ResolvedConfig } from "../config/types.js";
import type { Quirks } from "../fixups/quirks.js";
import { KvmSystem } from "../kvm/system.js";
import { captureVcpu } from "../kvm/vcpu-state.js";
import { captureVm as captureVmFd } from "../kvm/vm-state.js";
import type { CommandPages } from "../memory/command-pages.js";
import type { MappedGuestMemory } from "../memory/guest-memory.js";
import type { CpuidEntry } from "../x86/cpuid.js";
import type { KernelFormat } from "../x86/kernel.js";
import type { LiveParts } from "./builder.js";
import type { SavedMachine } from "./create.js";
import { hostCpu, nativeCpuid, type HostCpu } from "./host-cpu.js";
import { saveLegacy } from "./legacy-state.js";
import type { VmRun } from "./vm-run.js";

export interface Capture {
  readonly config: ResolvedConfig;
  readonly quirks: Quirks | undefined;
  readonly kernelFormat: KernelFormat;
  readonly machine: SavedMachine;
  readonly cpu: HostCpu;
  /** The processor's own CPUID, where the guest has seen that: where there are `quirks`. */
  readonly native: readonly CpuidEntry[];
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
  const { machine, cpu } = captureMachine();
  return {
    config,
    quirks,
    kernelFormat,
    machine,
    cpu,
    // Of the host that it was booted on, wherever it has been since.
    native: quirks === undefined ? [] : (saved?.native ?? nativeCpuid()),
    legacy: saveLegacy(run.machine.shared, config.pci),
    devices: run.devices?.save() ?? {},
    channel: run.command?.save() ?? null,
    memory,
    command,
    memoryFiles: saved?.source.files ?? [],
  };

  function captureMachine(): { machine: SavedMachine; cpu: HostCpu } {
    const system = KvmSystem.open();
    try {
      const cpu = hostCpu(system);
      const msrIndices = [...cpu.msrs];
      // The clock before the counters: a clock that lags behind them a little is what a guest may see.
      const vmState = captureVmFd(vm);
      const states = vcpus.map((vcpu, index) =>
        captureVcpu(vcpu, { cpuid: cpuids[index] ?? [], msrIndices, xsaveBytes: cpu.xsaveBytes }),
      );
      return { machine: { vm: vmState, vcpus: states }, cpu };
    } finally {
      system.close();
    }
  }
}
