// Which program ran on which machine: figures without that are worth nothing.
import { spawnSync } from "node:child_process";
import { loadavg, totalmem } from "node:os";
import {
  acceleratorKind,
  hasHardwareVirtualization,
  hostFacts,
  isInLab,
  type AcceleratorKind,
} from "../vmm/host/facts.js";

export interface Stamp {
  /** Short hash, "-dirty" added for a changed tree; "unknown" outside a repository. */
  readonly commit: string;
  /** ISO 8601, UTC. */
  readonly date: string;
  readonly cpu: string;
  readonly cpus: number;
  readonly memory_mib: number;
  readonly kernel: string;
  readonly node: string;
  /** Load average of the last minute at the start; above `cpus`, others competed and figures are doubtful. */
  readonly load: number;
  /** In words: what stands behind /dev/kvm of the machine on which the bench was started. */
  readonly accelerator: string;
}

const IN_WORDS: Readonly<Record<AcceleratorKind, string>> = {
  "kvm-intel": "hardware (kvm_intel, VT-x)",
  "kvm-amd": "hardware (kvm_amd, AMD-V)",
  "kvm-pvm": "software KVM (kvm_pvm): user-mode guest code runs natively, kernel code is interpreted",
  kvm: "a KVM of unknown make",
  none: "no /dev/kvm",
};

export function acceleratorInWords(): string {
  const kind = acceleratorKind();
  return isInLab() && hasHardwareVirtualization(kind) ? `the ${labInWords(kind)}` : IN_WORDS[kind];
}

/** `kind`: what the lab's own /dev/kvm is. */
export function labInWords(kind: string): string {
  return `lab (${kind} emulated by QEMU TCG)`;
}

function git(...argv: readonly string[]): string | undefined {
  const { status, stdout } = spawnSync("git", argv, { encoding: "utf8" });
  return status === 0 ? stdout.trim() : undefined;
}

/** Of the last minute, to two digits. */
export function loadAverage(): number {
  return Math.round((loadavg()[0] ?? Number.NaN) * 100) / 100;
}

export function stamp(cpus: number): Stamp {
  const { cpu, kernel, node } = hostFacts();
  return {
    commit: git("describe", "--always", "--dirty", "--exclude=*") ?? "unknown",
    date: new Date().toISOString(),
    cpu,
    cpus,
    memory_mib: Math.round(totalmem() / 2 ** 20),
    kernel,
    node,
    load: loadAverage(),
    accelerator: acceleratorInWords(),
  };
}
