// The host that a snapshot was made on, as its state file has it.
import type { State, StateReader } from "../../devices/state.js";
import { bootId, hostFacts } from "../host/facts.js";
import { cpuidFromData, cpuidToData } from "../kvm/vcpu-data.js";
import type { HostCpu } from "../machine/host-cpu.js";
import type { CpuidEntry } from "../x86/cpuid.js";
import { processorModel, type ProcessorModel } from "../x86/cpu-features.js";

export interface SavedHost {
  /** Name of the processor. */
  readonly cpu: string;
  readonly kernel: string;
  /** Of its kernel's boot: as long as that is the same, the processor is. */
  readonly boot: string;
  /** Its KVM had no hardware virtualization behind it. */
  readonly software: boolean;
  readonly processor: ProcessorModel;
  /** The processor's own CPUID where guests see that, because of `software`; else empty. */
  readonly native: readonly CpuidEntry[];
}

const MAX_TEXT = 1000;
const MAX_NATIVE = 64;
const MAX_U8 = { minimum: 0, maximum: 0x10e };

export function describeHost(cpu: HostCpu, software: boolean, native: readonly CpuidEntry[]): State {
  const facts = hostFacts();
  return {
    cpu: facts.cpu,
    kernel: facts.kernel,
    boot: bootId(),
    software,
    processor: { ...processorModel(cpu.supported) },
    native: software ? native.map(cpuidToData) : [],
  };
}

/** Throws StateError. */
export function readHost(host: StateReader): SavedHost {
  host.only(["cpu", "kernel", "boot", "software", "processor", "native"]);
  const processor = host.at("processor");
  processor.only(["vendor", "family", "model", "stepping"]);
  return {
    cpu: host.text("cpu", MAX_TEXT),
    kernel: host.text("kernel", MAX_TEXT),
    boot: host.text("boot", MAX_TEXT),
    software: host.boolean("software"),
    processor: {
      vendor: processor.text("vendor", 12),
      family: processor.integer("family", MAX_U8),
      model: processor.integer("model", MAX_U8),
      stepping: processor.integer("stepping", MAX_U8),
    },
    native: host.list("native", { minimum: 0, maximum: MAX_NATIVE }).map(cpuidFromData),
  };
}
