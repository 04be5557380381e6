// The processor: what it offers, and who has turned it off, the firmware or the level above.
import type { Check } from "../checks.js";
import { here } from "../checks.js";
import type { HostView } from "../host-view.js";
import { isVirtualMachine } from "../level-above.js";

/** Intel SDM vol. 4, IA32_FEATURE_CONTROL: bit 0 locks it, bit 2 allows VMX. */
const IA32_FEATURE_CONTROL = 0x3a;
const FEATURE_CONTROL_LOCKED = 1n << 0n;
const FEATURE_CONTROL_VMX = 1n << 2n;
/** AMD64 APM vol. 2 §15.4, VM_CR: bit 4 turns SVM off. */
const MSR_VM_CR = 0xc001_0114;
const VM_CR_SVMDIS = 1n << 4n;
/** CPUID leaf 1, ECX bit 5; leaf 0x80000001, ECX bit 2. */
const CPUID_VMX = 1 << 5;
const CPUID_SVM = 1 << 2;
const FIRMWARE_WORDS = /(?:kvm|VMX|SVM)[^\n]*(?:disabled[^\n]*(?:BIOS|MSR_VM_CR)|outside TXT disabled by BIOS)/i;

export type Extension = "vmx" | "svm";

/** What /proc/cpuinfo shows: the kernel leaves out what the firmware has turned off. */
export function extension({ files }: HostView): Extension | undefined {
  const flags = (/^flags\s*:\s*(.*)$/m.exec(files.read("/proc/cpuinfo") ?? "")?.[1] ?? "").split(" ");
  return flags.includes("vmx") ? "vmx" : flags.includes("svm") ? "svm" : undefined;
}

const EXTENSION_NAMES = { vmx: "VT-x (vmx)", svm: "AMD-V (svm)" } as const;

export const cpu: Check = {
  code: "cpu",
  area: "kvm",
  worst: "note",
  look: (host) => {
    const found = extension(host);
    const model = /^model name\s*:\s*(.*)$/m.exec(host.files.read("/proc/cpuinfo") ?? "")?.[1] ?? "unknown";
    const level = isVirtualMachine(host) ? "inside a virtual machine" : "on bare metal";
    const detail = `${model}, ${level}, ${found === undefined ? "neither vmx nor svm" : EXTENSION_NAMES[found]}`;
    return { status: found === undefined ? "note" : "ok", title: "CPU", detail };
  },
};

/** What shows that the firmware turned it off, in words; undefined if it did not. */
function firmwareEvidence(host: HostView): string | undefined {
  const { files } = host;
  const shown = extension(host);
  if (FIRMWARE_WORDS.test(host.kernelLog() ?? "")) return "the kernel's log says so";
  const control = host.msr(IA32_FEATURE_CONTROL);
  if (control !== undefined && (control & FEATURE_CONTROL_LOCKED) !== 0n && (control & FEATURE_CONTROL_VMX) === 0n)
    return "IA32_FEATURE_CONTROL is locked without VMX";
  const vmCr = host.msr(MSR_VM_CR);
  if (vmCr !== undefined && (vmCr & VM_CR_SVMDIS) !== 0n) return "SVMDIS is set in VM_CR";
  if (shown !== undefined) return undefined;
  const has = (leaf: number, bit: number): boolean => ((host.cpuid(leaf)?.ecx ?? 0) & bit) !== 0;
  if (has(1, CPUID_VMX)) return "CPUID has VMX, and the kernel does not use it";
  if (has(0x8000_0001, CPUID_SVM)) return "CPUID has SVM, and the kernel does not use it";
  // Every server and nearly every desktop processor of these makers since 2010 has it.
  const isBare = !isVirtualMachine(host);
  return isBare && /GenuineIntel|AuthenticAMD/.test(files.read("/proc/cpuinfo") ?? "")
    ? "a processor of its kind has it, and it does not show"
    : undefined;
}

export const firmwareOff: Check = {
  code: "firmware-off",
  area: "kvm",
  worst: "bad",
  look: (host) => {
    // If KVM runs guests, or its module has loaded, the firmware has not turned anything off.
    if (host.kvm.failure === undefined || host.files.list("/sys/module").some((name) => /^kvm_(intel|amd)$/.test(name)))
      return undefined;
    const evidence = firmwareEvidence(host);
    if (evidence === undefined) return undefined;
    return {
      status: "bad",
      title: "Firmware",
      detail: `VT-x or AMD-V is turned off in the firmware (${evidence})`,
      cure: isVirtualMachine(host)
        ? "turn it on in the virtual firmware of this machine, or on the level above"
        : 'turn on "Intel Virtualization Technology" or "SVM Mode" in the BIOS set-up, and switch the power off and on',
      commands: isVirtualMachine(host)
        ? []
        : [here("echo now reboot into the set-up: systemctl reboot --firmware-setup")],
    };
  },
};
