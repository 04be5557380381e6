// What kind of host this is, from the files that say so without a system call on KVM.
import { statSync } from "node:fs";
import { release } from "node:os";
import { readKept } from "./kept-files.js";

const CPUINFO = "/proc/cpuinfo";
const BOOT_ID = "/proc/sys/kernel/random/boot_id";
/** For a process that is to say later which host this is, and opens nothing then. */
export const FACT_FILES: readonly string[] = [CPUINFO, BOOT_ID];

export type AcceleratorKind = "kvm-intel" | "kvm-amd" | "kvm-pvm" | "kvm" | "none";

export interface HostFacts {
  /** Model name of the first processor. */
  readonly cpu: string;
  readonly kernel: string;
  readonly node: string;
}

const MODULES: readonly (readonly [name: string, kind: AcceleratorKind])[] = [
  ["kvm_intel", "kvm-intel"],
  ["kvm_amd", "kvm-amd"],
  ["kvm_pvm", "kvm-pvm"],
];

function exists(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false }) !== undefined;
}

let ownKind: AcceleratorKind | undefined;

/** The vendor part of KVM that is loaded; "kvm" for one that this program does not know. This host's is looked up once. */
export function acceleratorKind(has?: (path: string) => boolean): AcceleratorKind {
  return has === undefined ? (ownKind ??= kindWhere(exists)) : kindWhere(has);
}

function kindWhere(has: (path: string) => boolean): AcceleratorKind {
  for (const [name, kind] of MODULES) if (has(`/sys/module/${name}`)) return kind;
  return has("/dev/kvm") ? "kvm" : "none";
}

/** True where guest kernel code runs on the processor itself. */
export function hasHardwareVirtualization(kind: AcceleratorKind): boolean {
  return kind === "kvm-intel" || kind === "kvm-amd";
}

/** True inside `vmlet lab`, whose kernel command line says so. */
export function isInLab(): boolean {
  return process.env["VMLET_IN_LAB"] === "1";
}

let ownFacts: HostFacts | undefined;

/** Looked up once. */
export function hostFacts(): HostFacts {
  return (ownFacts ??= readFacts());
}

function readFacts(): HostFacts {
  const cpuinfo = readKept(CPUINFO);
  const cpu = /^model name\s*:\s*(.*)$/m.exec(cpuinfo)?.[1] ?? "unknown";
  return { cpu, kernel: release(), node: process.version };
}

let ownBoot: string | undefined;

/** Another one after each boot of this host. */
export function bootId(): string {
  return (ownBoot ??= readKept(BOOT_ID).trim());
}
