// The kernel's KVM: loaded, there to be loaded, or not built at all.
import { acceleratorKind, type AcceleratorKind } from "../../host/facts.js";
import { here, onContainerHost, type Check } from "../checks.js";
import { containerEngine } from "../container.js";
import type { HostView } from "../host-view.js";
import { extension } from "./processor.js";

const KIND_NAMES: Readonly<Record<AcceleratorKind, string>> = {
  "kvm-intel": "kvm_intel: VT-x",
  "kvm-amd": "kvm_amd: AMD-V",
  "kvm-pvm": "kvm_pvm: a software KVM, guest kernel code is emulated",
  kvm: "a KVM whose module is not known here",
  none: "none is loaded",
};

export function kindOf({ files }: HostView): AcceleratorKind {
  return acceleratorKind((path) => files.facts(path) !== undefined);
}

function nestedSetting({ files }: HostView, kind: AcceleratorKind): string {
  const value = files.read(`/sys/module/${kind.replace("-", "_")}/parameters/nested`);
  return value === undefined ? "" : `, nested ${value === "Y" || value === "1" ? "on" : "off"}`;
}

export const kvmModule: Check = {
  code: "kvm-module",
  area: "kvm",
  worst: "note",
  look: (host) => {
    const kind = kindOf(host);
    const status = kind === "kvm-intel" || kind === "kvm-amd" ? "ok" : "note";
    return { status, title: "KVM module", detail: KIND_NAMES[kind] + nestedSetting(host, kind) };
  },
};

/** The module that fits the processor. */
function wantedModule(host: HostView): string | undefined {
  const found = extension(host);
  return found === undefined ? undefined : found === "vmx" ? "kvm_intel" : "kvm_amd";
}

/** Whether this kernel has KVM to load; undefined where its modules cannot be seen, as in containers. */
function hasModuleFile({ files }: HostView): boolean | undefined {
  const folder = `/lib/modules/${files.read("/proc/sys/kernel/osrelease") ?? ""}`;
  const known = ["modules.dep", "modules.builtin"].map((name) => files.read(`${folder}/${name}`));
  if (known.every((text) => text === undefined)) return undefined;
  return known.some((text) => /\/kvm-(intel|amd)\.ko/.test(text ?? ""));
}

export const kvmNotLoaded: Check = {
  code: "kvm-not-loaded",
  area: "kvm",
  worst: "bad",
  look: (host) => {
    const module = wantedModule(host);
    if (module === undefined || kindOf(host) !== "none" || hasModuleFile(host) === false) return undefined;
    const isContained = containerEngine(host) !== undefined;
    const place = isContained ? onContainerHost : here;
    return {
      status: "bad",
      title: "KVM not loaded",
      detail: `the processor can do it, but ${module} is not loaded${isContained ? " on the host of this container" : ""}`,
      cure: `load it${isContained ? " there" : ""}: sudo modprobe ${module}`,
      commands: [place(`sudo modprobe ${module}`), place(`echo ${module} | sudo tee /etc/modules-load.d/kvm.conf`)],
    };
  },
};

export const kvmNotBuilt: Check = {
  code: "kvm-not-built",
  area: "kvm",
  worst: "bad",
  look: (host) => {
    if (kindOf(host) !== "none" || hasModuleFile(host) !== false || wantedModule(host) === undefined) return undefined;
    return {
      status: "bad",
      title: "No KVM",
      detail: `this kernel (${host.files.read("/proc/sys/kernel/osrelease") ?? "?"}) was built without KVM`,
      cure: "boot a kernel that has it; Debian: apt-get install linux-image-amd64",
      commands: [here("sudo apt-get install linux-image-amd64"), here("echo now reboot this host")],
    };
  },
};

export const kvmBusy: Check = {
  code: "kvm-busy",
  area: "kvm",
  worst: "bad",
  look: ({ kvm, files }) => {
    if (kvm.failure?.errno !== "EBUSY") return undefined;
    const holders = files.list("/sys/module").filter((name) => /^(vboxdrv|vmmon)$/.test(name));
    const who = holders.map((name) => (name === "vboxdrv" ? "VirtualBox" : "VMware")).join(" and ");
    return {
      status: "bad",
      title: "In use",
      detail: `${who === "" ? "another hypervisor" : who} holds the processor's virtualization`,
      cure: `stop ${who === "" ? "it" : `its machines and unload ${holders.join(", ")}`}`,
      commands: holders.map((name) => here(`sudo modprobe -r ${name}`)),
    };
  },
};
