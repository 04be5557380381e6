// What KVM says for itself, once it can be asked.
import type { Check } from "../checks.js";
import { HARDWARE_MIPS } from "../speed-probe.js";

export const kvmOpen: Check = {
  code: "kvm-open",
  area: "kvm",
  worst: "bad",
  look: ({ kvm }) =>
    kvm.failure === undefined
      ? { status: "ok", title: "KVM API", detail: `version 12, up to ${String(kvm.maxVcpus)} vCPUs` }
      : { status: "bad", title: "KVM API", detail: kvm.failure.message },
};

export const kvmCapabilities: Check = {
  code: "kvm-capabilities",
  area: "kvm",
  worst: "bad",
  look: ({ kvm }) => {
    if (kvm.capabilities.length === 0) return undefined;
    const title = "Capabilities";
    const missing = kvm.capabilities.filter(({ present, required }) => required && !present).map(({ name }) => name);
    if (missing.length === 0) return { status: "ok", title, detail: "all that are needed" };
    return { status: "bad", title, detail: `missing: ${missing.join(", ")}`, cure: "use a newer host kernel" };
  },
};

export const kvmSpeed: Check = {
  code: "kvm-speed",
  area: "kvm",
  worst: "note",
  look: ({ kvm: { mips } }) => {
    if (mips === undefined) return undefined;
    const isFast = mips >= HARDWARE_MIPS;
    const speed = mips >= 100 ? String(Math.round(mips)) : mips.toPrecision(2);
    return {
      status: isFast ? "ok" : "note",
      title: "Guest kernel speed",
      detail: `${speed} million instructions/s: ${isFast ? "hardware virtualization" : "emulated"}`,
    };
  },
};

export const kvmQuirks: Check = {
  code: "kvm-quirks",
  area: "kvm",
  worst: "note",
  look: ({ kvm: { quirks, failure } }) => {
    if (failure !== undefined) return undefined;
    const title = "Done by hand";
    if (quirks === undefined) return { status: "ok", title, detail: "nothing" };
    const names = [...quirks.missing, ...(quirks.syscallStaysInUserMode ? ["syscall"] : [])];
    return { status: "note", title, detail: `${names.join(", ")} in guest kernel code` };
  },
};
