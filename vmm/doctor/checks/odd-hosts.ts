// Hosts that look like Linux and are not, or not quite. Processors other than x86-64 are refused
// earlier, by the launcher (vmm/bundle/bundle.mjs).
import type { Check } from "../checks.js";

/** The build that gVisor's kernel claims to be, whatever release it names. */
const GVISOR_VERSION = /gvisor|Sun Jan 10 15:06:54 PST 2016/i;

export const hostGvisor: Check = {
  code: "host-gvisor",
  area: "kvm",
  worst: "bad",
  look: ({ files }) =>
    GVISOR_VERSION.test(files.read("/proc/version") ?? "")
      ? {
          status: "bad",
          title: "gVisor",
          detail: "this sandbox's kernel is gVisor, which has no KVM for programs in it",
          cure: "run this job with a runtime on the host's own kernel, such as runc",
        }
      : undefined,
};

export const hostWsl1: Check = {
  code: "host-wsl1",
  area: "kvm",
  worst: "bad",
  look: ({ files }) =>
    /-Microsoft$/.test(files.read("/proc/sys/kernel/osrelease") ?? "")
      ? {
          status: "bad",
          title: "WSL 1",
          detail: "there is no Linux kernel in WSL 1, and so no KVM",
          cure: "change this distribution to WSL 2, in Windows: wsl --set-version <NAME> 2",
          commands: [{ place: "level-above", line: "wsl --set-version <NAME> 2" }],
        }
      : undefined,
};

export const hostUserModeLinux: Check = {
  code: "host-user-mode-linux",
  area: "kvm",
  worst: "bad",
  look: ({ files }) =>
    /^vendor_id\s*:\s*User Mode Linux/m.test(files.read("/proc/cpuinfo") ?? "")
      ? {
          status: "bad",
          title: "User-mode Linux",
          detail: "this kernel is a program of another Linux, and cannot have KVM",
          cure: "run vmlet on that other Linux",
        }
      : undefined,
};
