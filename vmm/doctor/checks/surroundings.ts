// What else is on this host: control groups, container engines, TAP interfaces, the lab's programs.
import { INTEL_LAB_PACKAGES, LAB_PACKAGES, missingPackagesOf, type LabPackages } from "../../lab/programs.js";
import { here, type Check, type Observation } from "../checks.js";
import type { HostView } from "../host-view.js";
import { CAP_NET_ADMIN, identity } from "../identity.js";

export const cgroups: Check = {
  code: "cgroups",
  area: "extra",
  worst: "ok",
  look: ({ files }) => {
    const mounts = (files.read("/proc/self/mounts") ?? "").split("\n").map((line) => line.split(" "));
    const v2 = mounts.find(([, , type]) => type === "cgroup2")?.[1];
    const v1 = mounts.filter(([, , type]) => type === "cgroup").map(([, at]) => at?.split("/").at(-1));
    const layout =
      v1.length > 0 ? (v2 === undefined ? "v1" : "v1 and v2 (hybrid)") : v2 === undefined ? "none mounted" : "v2";
    return { status: "ok", title: "cgroups", detail: v1.length > 0 ? `${layout}: ${v1.join(", ")}` : layout };
  },
};

const ENGINES = ["docker", "dockerd", "podman", "runc", "crun", "lxc-start", "systemd-nspawn", "bwrap", "unshare"];

export const containers: Check = {
  code: "containers",
  area: "extra",
  worst: "ok",
  look: ({ findProgram }) => {
    const found = ENGINES.filter((name) => findProgram(name) !== undefined);
    return { status: "ok", title: "Containers", detail: found.length > 0 ? found.join(", ") : "no engine found" };
  },
};

export const tap: Check = {
  code: "tap",
  area: "extra",
  worst: "note",
  look: ({ files }) => {
    const title = "TAP interfaces";
    if (files.facts("/dev/net/tun") === undefined) {
      return {
        status: "note",
        title,
        detail: "there is no /dev/net/tun: no --net",
        cure: "load it: sudo modprobe tun; in a container: --device /dev/net/tun",
        commands: [here("sudo modprobe tun")],
      };
    }
    const { user, has } = identity(files);
    if (has(CAP_NET_ADMIN)) return { status: "ok", title, detail: "--net tap=auto can make them" };
    return {
      status: "note",
      title,
      detail: "--net tap=auto needs CAP_NET_ADMIN, all other devices do not",
      cure: `have one made for you: sudo ip tuntap add dev tap0 mode tap user ${user}, then --net tap=tap0`,
      commands: [here(`sudo ip tuntap add dev tap0 mode tap user ${user}`), here("sudo ip link set tap0 up")],
    };
  },
};

const KERNELS = {
  default: "the kernel for hardware KVM and the lab",
  fast: "the kernel for software KVMs",
};

export const guest: Check = {
  code: "guest",
  area: "extra",
  worst: "note",
  look: ({ guest: { hasInitramfs, kernels, missingPackages } }) => {
    const title = "Guest";
    const [one, another] = kernels;
    if (hasInitramfs && one !== undefined) {
      const detail =
        another === undefined
          ? `initramfs and ${KERNELS[one]} are built; the other kernel is built where it is needed`
          : "kernels and initramfs are built";
      return { status: "ok", title, detail };
    }
    if (missingPackages.length === 0) {
      return { status: "ok", title, detail: "the first boot builds it, once, in some minutes" };
    }
    const install = `sudo apt-get install --no-install-recommends ${missingPackages.join(" ")}`;
    return {
      status: "note",
      title,
      detail: `not built yet, and building it needs: ${missingPackages.join(", ")}`,
      cure: install,
      commands: [here(install)],
    };
  },
};

/** The name of this system where it is not Debian, which both labs are built from. */
function otherSystem({ files }: HostView): string | undefined {
  const system = /^ID="?([\w.-]+)/m.exec(files.read("/etc/os-release") ?? "")?.[1];
  return system === "debian" ? undefined : system;
}

/** What is missing of a lab, and how to get it; undefined if nothing is. */
function labLacks(packages: LabPackages, title: string, { findProgram, files }: HostView): Observation | undefined {
  const missing = missingPackagesOf(packages, {
    program: (name) => findProgram(name) !== undefined,
    file: (path) => files.facts(path) !== undefined,
  });
  if (missing.length === 0) return undefined;
  const install = `sudo apt-get install --no-install-recommends ${missing.join(" ")}`;
  return { status: "note", title, detail: `missing: ${missing.join(", ")}`, cure: install, commands: [here(install)] };
}

export const lab: Check = {
  code: "lab",
  area: "lab",
  worst: "note",
  look: (host) => {
    const title = "Lab";
    const system = otherSystem(host);
    if (system !== undefined) {
      return {
        status: "note",
        title,
        detail: `it is built from Debian's own kernel package, and this is ${system}`,
        cure: "run vmlet in a container of Debian 12, such as node:20-bookworm",
      };
    }
    const qemu = host.findProgram("qemu-system-x86_64");
    return labLacks(LAB_PACKAGES, title, host) ?? { status: "ok", title, detail: qemu ?? "complete" };
  },
};

export const intelLab: Check = {
  code: "lab-intel",
  area: "extra",
  worst: "note",
  look: (host) => {
    // The check of the first lab has named the other distribution already.
    if (otherSystem(host) !== undefined) return undefined;
    const title = "Lab with VT-x";
    return labLacks(INTEL_LAB_PACKAGES, title, host) ?? { status: "ok", title, detail: "Bochs, for --accel lab-intel" };
  },
};
