// Findings that need no KVM: the processor, modules, cgroups, container engines, QEMU.
import { existsSync, readFileSync, readdirSync } from "node:fs";
import { spawnSync } from "node:child_process";
import { acceleratorKind, hostFacts, type AcceleratorKind } from "../host.js";
import { findProgram, missingLabPrograms } from "../lab/programs.js";
import type { Finding } from "./checks.js";

function read(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8").trim();
  } catch {
    return undefined;
  }
}

export function cpuFinding(): Finding {
  const flags = new Set((/^flags\s*:\s*(.*)$/m.exec(read("/proc/cpuinfo") ?? "")?.[1] ?? "").split(" "));
  const extension = flags.has("vmx") ? "VT-x (vmx)" : flags.has("svm") ? "AMD-V (svm)" : undefined;
  const level = flags.has("hypervisor") ? "inside a virtual machine" : "on bare metal";
  const detail = `${hostFacts().cpu}, ${level}, ${extension ?? "neither vmx nor svm"}`;
  if (extension !== undefined) return { code: "cpu", status: "ok", title: "CPU", detail };
  const cure = flags.has("hypervisor")
    ? `turn on nested virtualization for this machine${hypervisorName()}`
    : "turn on VT-x or AMD-V (SVM) in the firmware";
  return { code: "cpu", status: "note", title: "CPU", detail, cure };
}

function hypervisorName(): string {
  const product = read("/sys/class/dmi/id/product_name");
  const vendor = read("/sys/class/dmi/id/sys_vendor");
  return product === undefined ? "" : ` (${[vendor, product].filter((part) => part !== undefined).join(" ")})`;
}

const KIND_NAMES: Readonly<Record<AcceleratorKind, string>> = {
  "kvm-intel": "kvm_intel: VT-x",
  "kvm-amd": "kvm_amd: AMD-V",
  "kvm-pvm": "kvm_pvm: a software KVM, guest kernel code is emulated",
  kvm: "a KVM whose module is not known here",
  none: "none is loaded",
};

export function moduleFinding(): Finding {
  const kind = acceleratorKind();
  const nested = nestedSetting(kind);
  const detail = KIND_NAMES[kind] + (nested === undefined ? "" : `, nested ${nested ? "on" : "off"}`);
  if (kind === "none") {
    return { code: "kvm-module", status: "bad", title: "KVM module", detail, cure: "modprobe kvm_intel or kvm_amd" };
  }
  return { code: "kvm-module", status: kind === "kvm-pvm" ? "note" : "ok", title: "KVM module", detail };
}

function nestedSetting(kind: AcceleratorKind): boolean | undefined {
  const value = read(`/sys/module/${kind.replace("-", "_")}/parameters/nested`);
  return value === undefined ? undefined : value === "Y" || value === "1";
}

export function cgroupFinding(): Finding {
  const mounts = (read("/proc/self/mounts") ?? "").split("\n").map((line) => line.split(" "));
  const v2 = mounts.find(([, , type]) => type === "cgroup2")?.[1];
  const v1 = mounts.filter(([, , type]) => type === "cgroup").map(([, at]) => at?.split("/").at(-1));
  const layout =
    v1.length > 0 ? (v2 === undefined ? "v1" : "v1 and v2 (hybrid)") : v2 === undefined ? "none mounted" : "v2";
  const detail = v1.length > 0 ? `${layout}: ${v1.join(", ")}` : layout;
  return { code: "cgroups", status: "ok", title: "cgroups", detail };
}

const ENGINES = ["docker", "dockerd", "podman", "runc", "crun", "lxc-start", "systemd-nspawn", "bwrap", "unshare"];

export function engineFinding(): Finding {
  const found = ENGINES.filter((name) => findProgram(name) !== undefined);
  return {
    code: "containers",
    status: "ok",
    title: "Containers",
    detail: found.length > 0 ? found.join(", ") : "no engine found",
  };
}

export function labFinding(): Finding {
  const missing = missingLabPrograms();
  const qemu = findProgram("qemu-system-x86_64");
  const version = qemu === undefined ? undefined : qemuVersion(qemu);
  if (missing.length === 0) return { code: "lab", status: "ok", title: "Lab", detail: version ?? "QEMU found" };
  return {
    code: "lab",
    status: "note",
    title: "Lab",
    detail: `missing: ${missing.join(", ")}`,
    cure: `apt-get install ${missing.join(" ")}`,
  };
}

function qemuVersion(path: string): string | undefined {
  const { stdout } = spawnSync(path, ["--version"], { encoding: "utf8" });
  return stdout.split("\n")[0];
}

/** True in a container, as far as files tell. */
export function isInContainer(): boolean {
  if (existsSync("/.dockerenv") || existsSync("/run/.containerenv")) return true;
  return readdirSync("/proc/1").length > 0 && (read("/proc/1/environ") ?? "").includes("container=");
}
