// What a KVM must offer before a VM is made on it.
import { memoryProblem, UNLIMITED_MEMORY_MIB } from "../config/memory-limits.js";
import type { ResolvedConfig } from "../config/types.js";
import { ConfigError, HostError } from "../errors.js";
import { availableMemoryMib } from "../host/available-memory.js";
import type { KvmSystem } from "../kvm/system.js";
import {
  KVM_CAP_IMMEDIATE_EXIT,
  KVM_CAP_IRQCHIP,
  KVM_CAP_IRQFD,
  KVM_CAP_MAX_VCPUS,
  KVM_CAP_PIT2,
  KVM_CAP_SIGNAL_MSI,
  KVM_CAP_USER_MEMORY,
} from "../sys/kvm-abi.js";
import { templateProblem, throughTemplate, type CpuTemplate } from "../x86/cpu-template.js";
import { offersVirtualization, physicalAddressBits } from "../x86/cpuid.js";

/** Capabilities without which nothing works here, with their UAPI names for the message. */
export const REQUIRED_CAPABILITIES: readonly (readonly [name: string, capability: number])[] = [
  ["KVM_CAP_IRQCHIP", KVM_CAP_IRQCHIP],
  ["KVM_CAP_USER_MEMORY", KVM_CAP_USER_MEMORY],
  ["KVM_CAP_IRQFD", KVM_CAP_IRQFD],
  ["KVM_CAP_PIT2", KVM_CAP_PIT2],
  ["KVM_CAP_IMMEDIATE_EXIT", KVM_CAP_IMMEDIATE_EXIT],
];

/** Throws HostError for what this KVM lacks, ConfigError for more vCPUs or memory than it allows. */
export function checkHost(system: KvmSystem, config: ResolvedConfig): void {
  const missing = REQUIRED_CAPABILITIES.filter(([, capability]) => system.checkExtension(capability) <= 0);
  if (missing.length > 0) {
    throw new HostError(`This KVM lacks ${missing.map(([name]) => name).join(", ")}`, {
      cure: "use a newer host kernel, or --accel lab",
    });
  }
  const maxVcpus = system.checkExtension(KVM_CAP_MAX_VCPUS);
  if (maxVcpus > 0 && config.cpus > maxVcpus) {
    throw new ConfigError([
      `Number of vCPUs ${String(config.cpus)} is more than the ${String(maxVcpus)} that this KVM allows`,
    ]);
  }
  if (config.nested && !offersVirtualization(system.supportedCpuid())) {
    throw new HostError("This KVM shows no guest VT-x or AMD-V: --nested is not possible", {
      cure: "load kvm_intel or kvm_amd with nested=1, or use --accel lab",
    });
  }
  if (config.pci && system.checkExtension(KVM_CAP_SIGNAL_MSI) <= 0) {
    throw new HostError("This KVM lacks KVM_CAP_SIGNAL_MSI: devices on a PCI bus could not interrupt the guest", {
      cure: "leave --pci out, or use --accel lab",
    });
  }
  if (config.memoryMib > UNLIMITED_MEMORY_MIB) {
    const limits = {
      addressBits: physicalAddressBits(system.supportedCpuid()),
      availableMib: availableMemoryMib(),
    };
    const problem = memoryProblem(config.memoryMib, limits);
    if (problem !== undefined) throw new ConfigError([problem]);
  }
}

/** Throws HostError for a template that cannot be on this host, ConfigError for one that hides what else is asked for. */
export function checkCpuTemplate(
  system: KvmSystem,
  config: ResolvedConfig,
  template: CpuTemplate,
  isSoftware: boolean,
): void {
  if (isSoftware) {
    throw new HostError(
      `CPU template ${template.name}: this KVM has no hardware virtualization, and its guests see the processor itself`,
      { cure: "leave the template out, or use --accel lab" },
    );
  }
  const supported = system.supportedCpuid();
  const problem = templateProblem(supported, template);
  if (problem !== undefined) {
    throw new HostError(`CPU template ${template.name} ${problem}`, { cure: "make one: vmlet snapshot cpu-template" });
  }
  if (config.nested && !offersVirtualization(throughTemplate(supported, template))) {
    throw new ConfigError([
      `CPU template ${template.name} hides VT-x and AMD-V, and the guest is to see them (nested)`,
    ]);
  }
}
