// Asks KVM: opens it, makes a VM, runs a few instructions. Where that ends is what the checks go by.
import { REQUIRED_CAPABILITIES } from "../machine/host-check.js";
import { KvmIoctlError } from "../errors.js";
import { probeQuirks } from "../fixups/probe.js";
import { KvmSystem } from "../kvm/system.js";
import {
  KVM_CAP_COALESCED_PIO,
  KVM_CAP_IOEVENTFD,
  KVM_CAP_MAX_VCPUS,
  KVM_CAP_SET_GUEST_DEBUG,
  KVM_CAP_SIGNAL_MSI,
  KVM_CAP_TSC_DEADLINE_TIMER,
  KVM_CAP_XSAVE,
} from "../sys/kvm-abi.js";
import type { Capability, KvmFailure, KvmView } from "./host-view.js";
import { measureGuestKernelMips } from "./speed-probe.js";

const OPTIONAL_CAPABILITIES: readonly (readonly [name: string, capability: number])[] = [
  ["KVM_CAP_COALESCED_PIO", KVM_CAP_COALESCED_PIO],
  ["KVM_CAP_IOEVENTFD", KVM_CAP_IOEVENTFD],
  ["KVM_CAP_SIGNAL_MSI", KVM_CAP_SIGNAL_MSI],
  ["KVM_CAP_TSC_DEADLINE_TIMER", KVM_CAP_TSC_DEADLINE_TIMER],
  ["KVM_CAP_SET_GUEST_DEBUG", KVM_CAP_SET_GUEST_DEBUG],
  ["KVM_CAP_XSAVE", KVM_CAP_XSAVE],
];

function failureOf(error: unknown): KvmFailure {
  const message = error instanceof Error ? error.message : String(error);
  if (error instanceof KvmIoctlError) return { request: error.request, errno: error.errnoName, message };
  const code = ((error as Error).cause as NodeJS.ErrnoException | undefined)?.code;
  return { request: code === undefined ? "" : "open", errno: code ?? "", message };
}

export function viewKvm(): KvmView {
  const nothing = { capabilities: [], maxVcpus: 0, mips: undefined, quirks: undefined };
  let system: KvmSystem;
  try {
    system = KvmSystem.open();
  } catch (error) {
    return { ...nothing, failure: failureOf(error) };
  }
  let seen: Omit<KvmView, "failure"> = nothing;
  try {
    const ask =
      (required: boolean) =>
      ([name, capability]: readonly [string, number]): Capability => ({
        name,
        present: system.checkExtension(capability) > 0,
        required,
      });
    const capabilities = [...REQUIRED_CAPABILITIES.map(ask(true)), ...OPTIONAL_CAPABILITIES.map(ask(false))];
    seen = { ...seen, capabilities, maxVcpus: system.checkExtension(KVM_CAP_MAX_VCPUS) };
    seen = { ...seen, mips: measureGuestKernelMips(system) };
    return { ...seen, quirks: probeQuirks(system), failure: undefined };
  } catch (error) {
    return { ...seen, failure: failureOf(error) };
  } finally {
    system.close();
  }
}
