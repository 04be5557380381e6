// Findings that KVM itself gives: the device and its rights, the API, capabilities, speed.
import { accessSync, constants, statSync } from "node:fs";
import { REQUIRED_CAPABILITIES } from "../builder.js";
import { VmmError } from "../errors.js";
import { probeQuirks } from "../fixups/probe.js";
import type { Quirks } from "../fixups/quirks.js";
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
import type { Capability, Finding } from "./checks.js";
import { isInContainer } from "./host-findings.js";
import { HARDWARE_MIPS, measureGuestKernelMips } from "./speed-probe.js";

const DEVICE = "/dev/kvm";

const OPTIONAL_CAPABILITIES: readonly (readonly [name: string, capability: number])[] = [
  ["KVM_CAP_COALESCED_PIO", KVM_CAP_COALESCED_PIO],
  ["KVM_CAP_IOEVENTFD", KVM_CAP_IOEVENTFD],
  ["KVM_CAP_SIGNAL_MSI", KVM_CAP_SIGNAL_MSI],
  ["KVM_CAP_TSC_DEADLINE_TIMER", KVM_CAP_TSC_DEADLINE_TIMER],
  ["KVM_CAP_SET_GUEST_DEBUG", KVM_CAP_SET_GUEST_DEBUG],
  ["KVM_CAP_XSAVE", KVM_CAP_XSAVE],
];

export interface KvmFindings {
  readonly findings: readonly Finding[];
  readonly capabilities: readonly Capability[];
  readonly mips: number | undefined;
  readonly isUsable: boolean;
  /** What this KVM leaves to the monitor; undefined if nothing, or if it could not be asked. */
  readonly quirks: Quirks | undefined;
}

export function kvmFindings(): KvmFindings {
  const device = deviceFinding();
  let system: KvmSystem;
  try {
    system = KvmSystem.open(DEVICE);
  } catch (error) {
    const cure = error instanceof VmmError ? error.cure : undefined;
    const container = isInContainer() ? "start the container with --device /dev/kvm" : cure;
    const detail = error instanceof Error ? error.message : String(error);
    const failed: Finding = { code: "kvm-open", status: "bad", title: "KVM API", detail, cure: container };
    return { findings: [device, failed], capabilities: [], mips: undefined, isUsable: false, quirks: undefined };
  }
  try {
    const ask =
      (required: boolean) =>
      ([name, capability]: readonly [string, number]): Capability => ({
        name,
        present: system.checkExtension(capability) > 0,
        required,
      });
    const capabilities = [...REQUIRED_CAPABILITIES.map(ask(true)), ...OPTIONAL_CAPABILITIES.map(ask(false))];
    const missing = capabilities.filter(({ present, required }) => required && !present);
    const api: Finding = {
      code: "kvm-open",
      status: "ok",
      title: "KVM API",
      detail: `version 12, up to ${String(system.checkExtension(KVM_CAP_MAX_VCPUS))} vCPUs`,
    };
    const speed = speedFinding();
    const quirks = probeQuirks(system);
    return {
      findings: [device, api, capabilityFinding(missing), speed.finding, quirksFinding(quirks)],
      capabilities,
      mips: speed.mips,
      isUsable: missing.length === 0 && speed.mips !== undefined,
      quirks,
    };
  } finally {
    system.close();
  }
}

function deviceFinding(): Finding {
  const title = "/dev/kvm";
  const stat = statSync(DEVICE, { throwIfNoEntry: false });
  if (stat === undefined) {
    return { code: "kvm-device", status: "bad", title, detail: "does not exist", cure: "load kvm_intel or kvm_amd" };
  }
  const mode = (stat.mode & 0o777).toString(8).padStart(4, "0");
  const detail = `mode ${mode}, owner ${String(stat.uid)}:${String(stat.gid)}, we are ${String(process.getuid?.())}`;
  try {
    accessSync(DEVICE, constants.R_OK | constants.W_OK);
    return { code: "kvm-device", status: "ok", title, detail };
  } catch {
    const cure = 'sudo usermod -aG kvm "$USER", then log in again';
    return { code: "kvm-device", status: "bad", title, detail: `${detail}: no right to open it`, cure };
  }
}

function capabilityFinding(missing: readonly Capability[]): Finding {
  const title = "Capabilities";
  if (missing.length === 0) return { code: "kvm-capabilities", status: "ok", title, detail: "all that are needed" };
  const names = missing.map(({ name }) => name).join(", ");
  return {
    code: "kvm-capabilities",
    status: "bad",
    title,
    detail: `missing: ${names}`,
    cure: "use a newer host kernel",
  };
}

function quirksFinding(quirks: Quirks | undefined): Finding {
  const title = "Done by hand";
  if (quirks === undefined) return { code: "kvm-quirks", status: "ok", title, detail: "nothing" };
  const names = [...quirks.missing, ...(quirks.syscallStaysInUserMode ? ["syscall"] : [])];
  return { code: "kvm-quirks", status: "note", title, detail: `${names.join(", ")} in guest kernel code` };
}

function speedFinding(): { finding: Finding; mips: number | undefined } {
  const title = "Guest kernel speed";
  try {
    const mips = measureGuestKernelMips();
    const isFast = mips >= HARDWARE_MIPS;
    const what = isFast ? "hardware virtualization" : "emulated";
    const detail = `${mips >= 100 ? String(Math.round(mips)) : mips.toPrecision(2)} million instructions/s: ${what}`;
    return { finding: { code: "kvm-speed", status: isFast ? "ok" : "note", title, detail }, mips };
  } catch (error) {
    const detail = error instanceof Error ? error.message : String(error);
    return { finding: { code: "kvm-speed", status: "bad", title, detail }, mips: undefined };
  }
}
