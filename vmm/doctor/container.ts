// Which container this process is in, if any, and how that engine hands a device over.
import { onContainerHost, type Command } from "./checks.js";
import type { HostView } from "./host-view.js";

export type Engine = "docker" | "podman" | "kubernetes" | "lxc" | "systemd-nspawn" | "unknown";

export interface DeviceCure {
  readonly cure: string;
  readonly commands: readonly Command[];
}

/** Undefined outside of containers, as far as files tell. */
export function containerEngine({ files, environment }: HostView): Engine | undefined {
  // A machine that was unpacked from a container's image still has its marks, but also a kernel's
  // /dev of its own, which no container gets.
  const dev = (files.read("/proc/self/mounts") ?? "").split("\n").filter((line) => line.split(" ")[1] === "/dev");
  if (dev.at(-1)?.split(" ")[2] === "devtmpfs") return undefined;
  const groups = files.read("/proc/1/cgroup") ?? files.read("/proc/self/cgroup") ?? "";
  if (environment["KUBERNETES_SERVICE_HOST"] !== undefined || groups.includes("kubepods")) return "kubernetes";
  // systemd's convention: PID 1 has container=NAME; the file is for those who may not read that.
  const named =
    /(?:^|\0)container=([\w-]+)/.exec(files.read("/proc/1/environ") ?? "")?.[1] ??
    files.read("/run/systemd/container") ??
    environment["container"];
  switch (named) {
    case "podman":
    case "docker":
    case "systemd-nspawn":
      return named;
    case "lxc":
    case "lxc-libvirt":
      return "lxc";
    default:
      break;
  }
  if (files.facts("/run/.containerenv") !== undefined || groups.includes("libpod")) return "podman";
  if (files.facts("/.dockerenv") !== undefined || groups.includes("docker")) return "docker";
  if (/\/lxc[./]/.test(groups)) return "lxc";
  return named === undefined ? undefined : "unknown";
}

const CURES: Readonly<Record<Engine, DeviceCure>> = {
  docker: {
    cure: "start the container with --device /dev/kvm",
    commands: [onContainerHost("docker run --device /dev/kvm <IMAGE>")],
  },
  podman: {
    cure: "start the container with --device /dev/kvm",
    commands: [onContainerHost("podman run --device /dev/kvm --group-add keep-groups <IMAGE>")],
  },
  kubernetes: {
    cure: "ask for the device in the pod: a device plugin's resource, such as devices.kubevirt.io/kvm: 1",
    commands: [],
  },
  lxc: {
    cure: "allow c 10:232 and mount /dev/kvm in the container's configuration",
    commands: [
      onContainerHost("echo 'lxc.cgroup2.devices.allow = c 10:232 rwm' >>/var/lib/lxc/<NAME>/config"),
      onContainerHost(
        "echo 'lxc.mount.entry = /dev/kvm dev/kvm none bind,optional,create=file' >>/var/lib/lxc/<NAME>/config",
      ),
    ],
  },
  "systemd-nspawn": {
    cure: "start the container with --bind=/dev/kvm and --property=DeviceAllow='/dev/kvm rw'",
    commands: [onContainerHost("systemd-nspawn --bind=/dev/kvm --property=DeviceAllow='/dev/kvm rw' -D <FOLDER>")],
  },
  unknown: {
    cure: "let the container have the character device 10:232, /dev/kvm",
    commands: [],
  },
};

/** How to get /dev/kvm into this container. */
export function deviceCure(engine: Engine): DeviceCure {
  return CURES[engine];
}
