// /dev/kvm is there and its permission bits would do, but something else says no.
import { here, onContainerHost, type Check } from "../checks.js";
import { containerEngine, deviceCure } from "../container.js";
import type { HostView } from "../host-view.js";
import { identity, modeAllows } from "../identity.js";

const DEVICE = "/dev/kvm";

/** True where open(2) answers EACCES although the permission bits allow it. */
function isForbiddenElsewhere(host: HostView): boolean {
  const { failure } = host.kvm;
  const facts = host.files.facts(DEVICE);
  if (failure?.request !== "open" || failure.errno !== "EACCES" || facts === undefined) return false;
  return modeAllows(identity(host.files), facts);
}

/** Options of the mount that the device lies on; proc_pid_mountinfo(5). */
function mountOptions({ files }: HostView): readonly string[] {
  const mounts = (files.read("/proc/self/mountinfo") ?? "").split("\n").map((line) => line.split(" "));
  const own = mounts.findLast(([, , , , at]) => at === DEVICE) ?? mounts.findLast(([, , , , at]) => at === "/dev");
  return own?.[5]?.split(",") ?? [];
}

export const deviceNodev: Check = {
  code: "device-nodev",
  area: "kvm",
  worst: "bad",
  look: (host) =>
    isForbiddenElsewhere(host) && mountOptions(host).includes("nodev")
      ? {
          status: "bad",
          title: "nodev",
          detail: "/dev/kvm lies on a mount with nodev, where no device can be opened",
          cure: "bind the host's /dev/kvm there, without nodev; user namespaces cannot make device nodes",
          commands: [here("findmnt -T /dev/kvm")],
        }
      : undefined,
};

export const deviceCgroup: Check = {
  code: "device-cgroup",
  area: "kvm",
  worst: "bad",
  look: (host) => {
    if (host.kvm.failure?.request !== "open" || host.kvm.failure.errno !== "EPERM") return undefined;
    const engine = containerEngine(host);
    const cure =
      engine === undefined
        ? {
            cure: "allow it in the unit: DeviceAllow=/dev/kvm rw",
            commands: [here("systemctl set-property --runtime <UNIT> DeviceAllow='/dev/kvm rw'")],
          }
        : deviceCure(engine);
    return {
      status: "bad",
      title: "Device cgroup",
      detail: "the device control group of this process does not allow c 10:232 (EPERM)",
      ...cure,
    };
  },
};

/** Profile of AppArmor; undefined where it does not confine this process. */
function appArmorProfile({ files }: HostView): string | undefined {
  const label = files.read("/proc/self/attr/apparmor/current") ?? files.read("/proc/self/attr/current");
  return label === undefined || label === "unconfined" || !/\((?:enforce|kill)\)$/.test(label) ? undefined : label;
}

function isSelinuxEnforcing({ files }: HostView): boolean {
  return files.read("/sys/fs/selinux/enforce") === "1";
}

export const lsmApparmor: Check = {
  code: "lsm-apparmor",
  area: "kvm",
  worst: "bad",
  look: (host) => {
    const profile = appArmorProfile(host);
    if (profile === undefined || !isForbiddenElsewhere(host)) return undefined;
    const isContained = containerEngine(host) !== undefined;
    return {
      status: "bad",
      title: "AppArmor",
      detail: `the AppArmor profile ${profile} forbids /dev/kvm`,
      cure: isContained
        ? "start the container with --security-opt apparmor=<PROFILE>, one that has: /dev/kvm rw,"
        : "add to the profile: /dev/kvm rw,",
      commands: isContained
        ? [onContainerHost("docker run --device /dev/kvm --security-opt apparmor=<PROFILE> <IMAGE>")]
        : [here("sudo aa-complain <PROFILE>   # or add /dev/kvm rw, to it and: sudo apparmor_parser -r <FILE>")],
    };
  },
};

export const lsmSelinux: Check = {
  code: "lsm-selinux",
  area: "kvm",
  worst: "bad",
  look: (host) => {
    if (!isSelinuxEnforcing(host) || !isForbiddenElsewhere(host)) return undefined;
    const isContained = containerEngine(host) !== undefined;
    return {
      status: "bad",
      title: "SELinux",
      detail: `SELinux forbids /dev/kvm to ${host.files.read("/proc/self/attr/current") ?? "this process"}`,
      cure: isContained
        ? "on the host: setsebool -P container_use_devices 1"
        : "allow it to this domain; ausearch -m avc -c node shows the rule",
      commands: isContained
        ? [onContainerHost("sudo setsebool -P container_use_devices 1")]
        : [here("sudo ausearch -m avc -c node | audit2allow -m vmlet")],
    };
  },
};

export const lsmOther: Check = {
  code: "lsm-other",
  area: "kvm",
  worst: "bad",
  look: (host) => {
    if (!isForbiddenElsewhere(host)) return undefined;
    if (mountOptions(host).includes("nodev") || appArmorProfile(host) !== undefined || isSelinuxEnforcing(host))
      return undefined;
    const modules = host.files.read("/sys/kernel/security/lsm");
    return {
      status: "bad",
      title: "Security module",
      detail: `the permission bits of /dev/kvm allow it, but something else forbids it${modules === undefined ? "" : ` (active: ${modules})`}`,
      cure: "look for Landlock or another sandbox around this process; the audit log may name it",
      commands: [here("sudo dmesg | grep -iE 'landlock|audit|denied' | tail")],
    };
  },
};

export const seccomp: Check = {
  code: "seccomp",
  area: "kvm",
  worst: "bad",
  look: (host) => {
    const { failure } = host.kvm;
    if (failure === undefined || failure.request === "open") return undefined;
    if (!["EPERM", "ENOSYS", "EACCES"].includes(failure.errno)) return undefined;
    const hasFilter = identity(host.files).hasSeccompFilter;
    const isContained = containerEngine(host) !== undefined;
    return {
      status: "bad",
      title: "seccomp",
      detail: `/dev/kvm opens, but ${failure.request} gets ${failure.errno}: ${
        hasFilter ? "a seccomp filter forbids it" : "a security module forbids it"
      }`,
      cure: isContained
        ? "start the container with a seccomp profile that allows ioctl: --security-opt seccomp=<FILE>"
        : "leave ioctl out of the filter (systemd: SystemCallFilter=)",
      commands: isContained
        ? [onContainerHost("docker run --device /dev/kvm --security-opt seccomp=<FILE> <IMAGE>")]
        : [here("grep -E 'Seccomp|NoNewPrivs' /proc/self/status")],
    };
  },
};
