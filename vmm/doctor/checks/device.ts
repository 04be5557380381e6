// /dev/kvm itself: whether it is there, is what it should be, and by its permission bits may be opened.
import { here, onContainerHost, type Check } from "../checks.js";
import { containerEngine, deviceCure } from "../container.js";
import type { FileFacts, HostView } from "../host-view.js";
import { identity, membersOf, modeAllows, nameOf } from "../identity.js";
import { kindOf } from "./kvm-module.js";

const DEVICE = "/dev/kvm";
/** linux/miscdevice.h: MISC_MAJOR, KVM_MINOR. */
const KVM_MAJOR = 10;
const KVM_MINOR = 232;
/** The id that a user namespace shows for users outside of it (/proc/sys/kernel/overflowuid, overflowgid). */
const OVERFLOW_ID = 65_534;
const GROUP_READ_WRITE = 0o060;

function describe({ files }: HostView, { mode, uid, gid }: FileFacts): string {
  // In a user namespace, nobody's name is that of all users outside.
  const isOutside = uid === OVERFLOW_ID && gid === OVERFLOW_ID;
  const owner = isOutside
    ? "root or another user"
    : `${nameOf(files, "/etc/passwd", uid)}:${nameOf(files, "/etc/group", gid)}`;
  return `mode ${mode.toString(8).padStart(4, "0")}, owner ${owner}`;
}

/** Facts of the device, where the permission bits are why it does not open. */
function forbiddenByMode(host: HostView): FileFacts | undefined {
  const facts = host.files.facts(DEVICE);
  const { failure } = host.kvm;
  if (facts === undefined || failure?.request !== "open" || failure.errno !== "EACCES") return undefined;
  return modeAllows(identity(host.files), facts) ? undefined : facts;
}

/** Whether the group of the device is one that users can be put into. */
function hasUsableGroup({ mode, gid }: FileFacts): boolean {
  return (mode & GROUP_READ_WRITE) === GROUP_READ_WRITE && gid !== 0;
}

export const kvmDevice: Check = {
  code: "kvm-device",
  area: "kvm",
  worst: "bad",
  look: (host) => {
    const facts = host.files.facts(DEVICE);
    if (facts === undefined) return { status: "bad", title: DEVICE, detail: "does not exist" };
    const { failure } = host.kvm;
    const isOpen = failure?.request !== "open";
    const who = `we are ${identity(host.files).user}`;
    return {
      status: isOpen ? "ok" : "bad",
      title: DEVICE,
      detail: `${describe(host, facts)}, ${who}${isOpen ? "" : `: ${failure.message}`}`,
    };
  },
};

export const deviceNotInContainer: Check = {
  code: "device-not-in-container",
  area: "kvm",
  worst: "bad",
  look: (host) => {
    const engine = containerEngine(host);
    // A container sees the host's modules. If none of them is KVM's, the host's device would not help.
    if (engine === undefined || host.files.facts(DEVICE) !== undefined || kindOf(host) === "none") return undefined;
    return {
      status: "bad",
      title: "Container",
      detail: `the host has KVM, this container (${engine}) was not given /dev/kvm`,
      ...deviceCure(engine),
    };
  },
};

export const deviceMissing: Check = {
  code: "device-missing",
  area: "kvm",
  worst: "bad",
  look: (host) => {
    if (host.files.facts(DEVICE) !== undefined || kindOf(host) === "none" || containerEngine(host) !== undefined)
      return undefined;
    return {
      status: "bad",
      title: "No device node",
      detail: "KVM is loaded, but there is no /dev/kvm: nothing like udev has made it",
      cure: "make it: sudo mknod -m 0660 /dev/kvm c 10 232",
      commands: [here("sudo mknod -m 0660 /dev/kvm c 10 232"), here("sudo chgrp kvm /dev/kvm")],
    };
  },
};

export const deviceWrong: Check = {
  code: "device-wrong",
  area: "kvm",
  worst: "bad",
  look: ({ files }) => {
    const facts = files.facts(DEVICE);
    if (facts === undefined) return undefined;
    const { kind, major, minor } = facts;
    if (kind === "character-device" && major === KVM_MAJOR && minor === KVM_MINOR) return undefined;
    const what = kind === "character-device" ? `device ${String(major)}:${String(minor)}` : `a ${kind}`;
    return {
      status: "bad",
      title: "Wrong device",
      detail: `/dev/kvm is ${what}, not the character device 10:232`,
      cure: "remove it, and load KVM or hand the container the device with --device, not as a volume",
      // A folder may be a volume of the host's: only an empty one is removed.
      commands: [
        here("ls -l /dev/kvm"),
        here(`sudo ${kind === "directory" ? "rmdir" : "rm"} /dev/kvm && sudo mknod -m 0660 /dev/kvm c 10 232`),
      ],
    };
  },
};

export const deviceNoDriver: Check = {
  code: "device-no-driver",
  area: "kvm",
  worst: "bad",
  look: ({ kvm }) =>
    kvm.failure?.request === "open" && (kvm.failure.errno === "ENODEV" || kvm.failure.errno === "ENXIO")
      ? {
          status: "bad",
          title: "No driver",
          detail: `/dev/kvm is there, but no driver answers (${kvm.failure.errno})`,
          cure: "load kvm_intel or kvm_amd; where that fails, dmesg says why",
          commands: [here("sudo modprobe kvm_intel || sudo modprobe kvm_amd || sudo dmesg | grep -i kvm")],
        }
      : undefined,
};

export const deviceGroup: Check = {
  code: "device-group",
  area: "kvm",
  worst: "bad",
  look: (host) => {
    const facts = forbiddenByMode(host);
    if (facts === undefined || !hasUsableGroup(facts)) return undefined;
    const { user } = identity(host.files);
    if (membersOf(host.files, facts.gid).includes(user)) return undefined;
    const group = nameOf(host.files, "/etc/group", facts.gid);
    const detail = `${describe(host, facts)}: ${user} is not in the group ${group}`;
    const engine = containerEngine(host);
    if (engine === undefined) {
      return {
        status: "bad",
        title: "Group",
        detail,
        cure: `sudo usermod -aG ${group} ${user}, then log in again`,
        commands: [here(`sudo usermod -aG ${group} ${user}`), here(`newgrp ${group}`)],
      };
    }
    const isMapped = facts.gid !== OVERFLOW_ID;
    const option = isMapped ? `--group-add ${String(facts.gid)}` : "--group-add keep-groups";
    return {
      status: "bad",
      title: "Group",
      detail,
      cure: `start the container with ${option}`,
      commands: [
        onContainerHost(`${engine === "podman" ? "podman" : "docker"} run --device /dev/kvm ${option} <IMAGE>`),
      ],
    };
  },
};

export const deviceLogin: Check = {
  code: "device-login",
  area: "kvm",
  worst: "bad",
  look: (host) => {
    const facts = forbiddenByMode(host);
    if (facts === undefined || !hasUsableGroup(facts)) return undefined;
    const { user } = identity(host.files);
    if (!membersOf(host.files, facts.gid).includes(user)) return undefined;
    const group = nameOf(host.files, "/etc/group", facts.gid);
    return {
      status: "bad",
      title: "Login",
      detail: `${user} has been added to the group ${group}, but this session began before that`,
      cure: `log in again, or: newgrp ${group}`,
      commands: [here(`newgrp ${group}`)],
    };
  },
};

/** Opens the device for everybody on this host: CI runners with one user need that. */
const UDEV_RULE = 'KERNEL=="kvm", GROUP="kvm", MODE="0666", OPTIONS+="static_node=kvm"';

export const deviceMode: Check = {
  code: "device-mode",
  area: "kvm",
  worst: "bad",
  look: (host) => {
    const facts = forbiddenByMode(host);
    if (facts === undefined || hasUsableGroup(facts)) return undefined;
    const place = containerEngine(host) === undefined ? here : onContainerHost;
    return {
      status: "bad",
      title: "Mode",
      detail: `${describe(host, facts)}: only its owner may open it, and we are ${identity(host.files).user}`,
      cure: `a udev rule opens it: ${UDEV_RULE}`,
      commands: [
        place(`echo '${UDEV_RULE}' | sudo tee /etc/udev/rules.d/99-kvm.rules`),
        place("sudo udevadm control --reload-rules && sudo udevadm trigger --name-match=kvm"),
      ],
    };
  },
};
