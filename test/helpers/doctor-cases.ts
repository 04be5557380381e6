// A host for each diagnosis of the doctor: what is different there, and what the doctor must say.
import {
  AMD,
  INTEL_WITHOUT,
  IN_VM,
  KVM_DEVICE,
  pciDevice,
  signature,
  status,
  type Fixture,
  type Tree,
} from "./fixture-host.js";

const NO_MODULE: Tree = { "/sys/module/kvm_intel": undefined, "/sys/module/kvm_intel/parameters/nested": undefined };
export const NO_KVM: Tree = { ...NO_MODULE, "/dev/kvm": undefined };
export const IN_DOCKER: Tree = { "/proc/self/mounts": "tmpfs /dev tmpfs rw,nosuid 0 0\n", "/.dockerenv": "" };
export const NOT_MEMBER = status({ groups: "1000" });
const ROOT = status({ uid: 0, capabilities: 2n ** 41n - 1n });

/** A host with a fault, and what the doctor must say. */
export interface Case {
  readonly code: string;
  readonly when: string;
  readonly host: Fixture;
  readonly detail: RegExp;
  readonly cure: RegExp;
  readonly status?: "note" | "bad";
  /** Other problems that may be reported beside it. */
  readonly beside?: readonly string[];
}

export const CASES: readonly Case[] = [
  {
    code: "host-gvisor",
    when: "the kernel is gVisor's",
    host: {
      files: { "/proc/version": "Linux version 4.19.0-gvisor #1 SMP Sun Jan 10 15:06:54 PST 2016" },
      openFails: "ENOENT",
    },
    detail: /gVisor/,
    cure: /runc/,
  },
  {
    code: "host-wsl1",
    when: "Windows plays Linux",
    host: {
      files: { ...NO_KVM, "/proc/cpuinfo": INTEL_WITHOUT, "/proc/sys/kernel/osrelease": "4.4.0-19041-Microsoft" },
      openFails: "ENOENT",
    },
    detail: /WSL 1/,
    cure: /--set-version/,
    beside: ["firmware-off"],
  },
  {
    code: "host-user-mode-linux",
    when: "the kernel is a program",
    host: { files: { ...NO_KVM, "/proc/cpuinfo": "vendor_id : User Mode Linux\n" }, openFails: "ENOENT" },
    detail: /cannot have KVM/,
    cure: /other Linux/,
  },
  {
    code: "firmware-off",
    when: "CPUID has VMX and the kernel hides it",
    host: { files: { ...NO_KVM, "/proc/cpuinfo": INTEL_WITHOUT }, openFails: "ENOENT", cpuid: { 1: { ecx: 1 << 5 } } },
    detail: /CPUID has VMX/,
    cure: /BIOS/,
  },
  {
    code: "firmware-off",
    when: "the lock of IA32_FEATURE_CONTROL is readable",
    host: { files: NO_KVM, openFails: "ENOENT", msrs: { 0x3a: 1n } },
    detail: /IA32_FEATURE_CONTROL/,
    cure: /BIOS/,
    beside: ["kvm-not-loaded"],
  },
  {
    code: "firmware-off",
    when: "SVMDIS is set",
    host: { files: { ...NO_KVM, "/proc/cpuinfo": AMD }, openFails: "ENOENT", msrs: { 0xc0010114: 0x18n } },
    detail: /SVMDIS/,
    cure: /SVM Mode/,
    beside: ["kvm-not-loaded"],
  },
  {
    code: "firmware-off",
    when: "the kernel's log has it",
    host: { files: NO_KVM, openFails: "ENOENT", log: "6,1,2,-;kvm_intel: VMX (outside TXT) disabled by BIOS\n" },
    detail: /log says so/,
    cure: /BIOS/,
    beside: ["kvm-not-loaded"],
  },
  {
    code: "firmware-off",
    when: "only the kind of processor tells",
    host: { files: { ...NO_KVM, "/proc/cpuinfo": INTEL_WITHOUT }, openFails: "ENOENT" },
    detail: /does not show/,
    cure: /BIOS/,
  },
  {
    code: "nested-off",
    when: "nothing but a hypervisor is there",
    host: {
      files: { ...NO_KVM, "/proc/cpuinfo": IN_VM },
      openFails: "ENOENT",
      cpuid: { 0x40000000: signature("KVMKVMKVM") },
    },
    detail: /^KVM runs this machine/,
    cure: /nested=1/,
  },
  {
    code: "nested-off",
    when: "a software KVM still works",
    host: {
      files: { ...NO_MODULE, "/sys/module/kvm_pvm": {}, "/proc/cpuinfo": IN_VM },
      kvm: { mips: 1.6, quirks: { missing: ["int3"], syscallStaysInUserMode: true, tscKhz: 1, xsaveComponents: [] } },
    },
    detail: /unknown hypervisor/,
    cure: /nested/,
    status: "note",
    beside: ["kvm-speed", "kvm-quirks"],
  },
  {
    code: "kvm-not-loaded",
    when: "vmx is there, the module is not",
    host: { files: NO_KVM, openFails: "ENOENT" },
    detail: /kvm_intel is not loaded/,
    cure: /modprobe kvm_intel/,
  },
  {
    code: "kvm-not-loaded",
    when: "the host of a container has not loaded it",
    host: { files: { ...NO_KVM, ...IN_DOCKER, "/proc/cpuinfo": AMD }, openFails: "ENOENT" },
    detail: /kvm_amd is not loaded on the host of this container/,
    cure: /there: sudo modprobe kvm_amd/,
  },
  {
    code: "kvm-not-built",
    when: "the kernel's modules are known and KVM is not among them",
    host: {
      files: { ...NO_KVM, "/lib/modules/6.1.0-28-amd64/modules.dep": "kernel/fs/ext4.ko:\n" },
      openFails: "ENOENT",
    },
    detail: /built without KVM/,
    cure: /linux-image-amd64/,
  },
  {
    code: "kvm-busy",
    when: "VirtualBox holds VT-x",
    host: {
      files: { "/sys/module/vboxdrv": {} },
      kvm: { failure: { request: "KVM_CREATE_VM", errno: "EBUSY", message: "KVM_CREATE_VM failed with EBUSY" } },
    },
    detail: /^VirtualBox/,
    cure: /unload vboxdrv/,
  },
  {
    code: "device-not-in-container",
    when: "Docker was not told",
    host: { files: { ...IN_DOCKER, "/dev/kvm": undefined }, openFails: "ENOENT" },
    detail: /\(docker\) was not given/,
    cure: /--device \/dev\/kvm/,
  },
  {
    code: "device-not-in-container",
    when: "a pod did not ask",
    host: {
      files: { ...IN_DOCKER, "/dev/kvm": undefined },
      environment: { KUBERNETES_SERVICE_HOST: "10.0.0.1" },
      openFails: "ENOENT",
    },
    detail: /\(kubernetes\)/,
    cure: /device plugin/,
  },
  {
    code: "device-missing",
    when: "KVM is loaded and nobody made the node",
    host: { files: { "/dev/kvm": undefined }, openFails: "ENOENT" },
    detail: /nothing like udev/,
    cure: /mknod/,
  },
  {
    code: "device-wrong",
    when: "a volume made a folder of it",
    host: { files: { "/dev/kvm": { kind: "directory", mode: 0o755 } }, openFails: "EISDIR" },
    detail: /a directory/,
    cure: /--device/,
  },
  {
    code: "device-no-driver",
    when: "the node is older than the module's end",
    host: { files: NO_MODULE, openFails: "ENODEV" },
    detail: /no driver answers \(ENODEV\)/,
    cure: /dmesg/,
  },
  {
    code: "device-group",
    when: "the user is not in the group",
    host: {
      files: { "/proc/self/status": NOT_MEMBER, "/etc/group": "kvm:x:105:bob\n" },
      openFails: "EACCES",
    },
    detail: /mode 0660, owner root:kvm: ann is not in the group kvm/,
    cure: /usermod -aG kvm ann/,
  },
  {
    code: "device-group",
    when: "a container's user is not",
    host: { files: { ...IN_DOCKER, "/proc/self/status": NOT_MEMBER, "/etc/group": "" }, openFails: "EACCES" },
    detail: /not in the group 105/,
    cure: /--group-add 105/,
  },
  {
    code: "device-group",
    when: "rootless podman has not kept the groups",
    host: {
      files: {
        ...IN_DOCKER,
        "/.dockerenv": undefined,
        "/run/.containerenv": 'engine="podman-4.3.1"',
        "/proc/self/status": NOT_MEMBER,
        "/dev/kvm": { ...KVM_DEVICE, gid: 65534 },
      },
      openFails: "EACCES",
    },
    detail: /65534/,
    cure: /keep-groups/,
  },
  {
    code: "device-login",
    when: "the session is older than the membership",
    host: { files: { "/proc/self/status": NOT_MEMBER }, openFails: "EACCES" },
    detail: /began before/,
    cure: /newgrp kvm/,
  },
  {
    code: "device-mode",
    when: "only root may",
    host: { files: { "/dev/kvm": { ...KVM_DEVICE, mode: 0o600, gid: 0 } }, openFails: "EACCES" },
    detail: /mode 0600, owner root:root: only its owner/,
    cure: /udev rule/,
  },
  {
    code: "device-nodev",
    when: "the mount says nodev",
    host: {
      files: {
        "/proc/self/mountinfo": "25 30 0:5 / /dev rw - tmpfs t rw\n26 25 0:5 / /dev/kvm rw,nodev - tmpfs t rw\n",
      },
      openFails: "EACCES",
    },
    detail: /nodev/,
    cure: /bind/,
  },
  {
    code: "device-cgroup",
    when: "a container's device list leaves it out",
    host: { files: { ...IN_DOCKER, "/proc/self/status": ROOT }, openFails: "EPERM" },
    detail: /c 10:232 \(EPERM\)/,
    cure: /--device/,
  },
  {
    code: "device-cgroup",
    when: "a unit's device list leaves it out",
    host: { openFails: "EPERM" },
    detail: /control group/,
    cure: /DeviceAllow/,
  },
  {
    code: "lsm-apparmor",
    when: "a profile forbids it",
    host: { files: { "/proc/self/attr/current": "docker-default (enforce)" }, openFails: "EACCES" },
    detail: /docker-default/,
    cure: /dev\/kvm rw/,
  },
  {
    code: "lsm-selinux",
    when: "SELinux enforces",
    host: {
      files: {
        ...IN_DOCKER,
        "/sys/fs/selinux/enforce": "1",
        "/proc/self/attr/current": "system_u:system_r:container_t:s0",
      },
      openFails: "EACCES",
    },
    detail: /container_t/,
    cure: /container_use_devices/,
  },
  {
    code: "lsm-other",
    when: "nothing known forbids it",
    host: { files: { "/sys/kernel/security/lsm": "landlock,yama" }, openFails: "EACCES" },
    detail: /landlock/,
    cure: /sandbox/,
  },
  {
    code: "seccomp",
    when: "a filter answers ioctl",
    host: {
      files: { ...IN_DOCKER, "/proc/self/status": status({ groups: "105", seccomp: 2 }) },
      kvm: { failure: { request: "KVM_GET_API_VERSION", errno: "EPERM", message: "m" }, capabilities: [] },
    },
    detail: /KVM_GET_API_VERSION gets EPERM: a seccomp filter/,
    cure: /seccomp profile/,
  },
  {
    code: "seccomp",
    when: "the same without a filter is an LSM",
    host: { kvm: { failure: { request: "KVM_CREATE_VM", errno: "EACCES", message: "m" } } },
    detail: /a security module/,
    cure: /filter/,
  },
  {
    code: "kvm-capabilities",
    when: "one is missing",
    host: { kvm: { capabilities: [{ name: "KVM_CAP_IRQCHIP", present: false, required: true }] } },
    detail: /KVM_CAP_IRQCHIP/,
    cure: /newer/,
  },
  {
    code: "memory-free",
    when: "the host is full",
    host: { files: { "/proc/meminfo": "MemAvailable: 100000 kB\n" } },
    detail: /98 MiB available.*192 MiB/,
    cure: /--memory/,
  },
  {
    code: "memory-cgroup",
    when: "v2 leaves too little, two levels up",
    host: {
      files: {
        "/proc/self/cgroup": "0::/a/b\n",
        "/sys/fs/cgroup/a/b/memory.max": "max",
        "/sys/fs/cgroup/a/b/memory.current": "1",
        "/sys/fs/cgroup/a/memory.max": String(256 * 2 ** 20),
        "/sys/fs/cgroup/a/memory.current": String(200 * 2 ** 20),
        "/sys/fs/cgroup/a/memory.stat": `anon 1\ninactive_file ${String(20 * 2 ** 20)}\n`,
      },
    },
    detail: /^76 MiB left/,
    cure: /MemoryMax/,
  },
  {
    code: "memory-cgroup",
    when: "v1 leaves too little in a container",
    host: {
      files: {
        ...IN_DOCKER,
        "/proc/self/cgroup": "4:memory:/docker/abc\n0::/\n",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes": String(128 * 2 ** 20),
        "/sys/fs/cgroup/memory/memory.usage_in_bytes": String(28 * 2 ** 20),
      },
    },
    detail: /^100 MiB left/,
    cure: /larger --memory/,
  },
  {
    code: "memory-rlimit",
    when: "ulimit -v is low",
    host: { files: { "/proc/self/limits": "Max address space         1024000000   1024000000   bytes\n" } },
    detail: /RLIMIT_AS leaves 98 MiB/,
    cure: /ulimit -v/,
  },
  {
    code: "hugepages",
    when: "they are turned off",
    host: { files: { "/sys/kernel/mm/transparent_hugepage/enabled": "always madvise [never]" } },
    detail: /transparent: never/,
    cure: /madvise/,
    status: "note",
  },
  {
    code: "tap",
    when: "there is no tun",
    host: { files: { "/dev/net/tun": undefined } },
    detail: /no \/dev\/net\/tun/,
    cure: /modprobe tun/,
    status: "note",
  },
  {
    code: "shares",
    when: "virtiofsd is missing",
    host: { files: { "/usr/lib/qemu/virtiofsd": undefined } },
    detail: /virtiofsd is missing/,
    cure: /apt-get install .*qemu-system-common/,
    status: "note",
  },
  {
    code: "shares",
    when: "an ordinary user may make no namespaces",
    host: { files: { "/proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1" } },
    detail: /kernel\.apparmor_restrict_unprivileged_userns=1 forbids/,
    cure: /sysctl -w kernel\.apparmor_restrict_unprivileged_userns=0/,
    status: "note",
  },
  {
    code: "jail",
    when: "the kernel has no filters",
    host: { files: { "/proc/sys/kernel/seccomp/actions_avail": undefined } },
    detail: /no filters of system calls/,
    cure: /CONFIG_SECCOMP_FILTER/,
    status: "note",
  },
  {
    code: "guest",
    when: "it cannot be built",
    host: { guest: { hasInitramfs: false, kernels: ["fast"], missingPackages: ["flex", "bison"] } },
    detail: /not built yet.*flex, bison/,
    cure: /apt-get install .*flex bison/,
    status: "note",
  },
  {
    code: "lab",
    when: "QEMU is missing",
    host: { without: ["qemu-system-x86_64"] },
    detail: /missing: qemu-system-x86/,
    cure: /apt-get install .*qemu-system-x86/,
    status: "note",
  },
  {
    code: "lab-intel",
    when: "Bochs is missing",
    host: { without: ["bochs-bin"] },
    detail: /missing: bochs/,
    cure: /apt-get install .*bochs/,
    status: "note",
  },
  {
    code: "lab",
    when: "this is not Debian",
    host: { files: { "/etc/os-release": 'NAME="Ubuntu"\nID=ubuntu\nID_LIKE=debian\n' } },
    detail: /this is ubuntu/,
    cure: /node:20-bookworm/,
    status: "note",
  },
  {
    code: "iommu",
    when: "it is off",
    host: {},
    detail: /no groups/,
    cure: /intel_iommu=on/,
    status: "note",
  },
  {
    code: "vfio",
    when: "it is not loaded",
    host: {},
    detail: /no \/dev\/vfio\/vfio/,
    cure: /vfio-pci/,
    status: "note",
  },
  {
    code: "vfio-memlock",
    when: "little may be locked",
    host: { files: { "/proc/self/limits": "Max locked memory         8388608   8388608   bytes\n" } },
    detail: /8 MiB/,
    cure: /LimitMEMLOCK/,
    status: "note",
  },
  {
    code: "vfio-devices",
    when: "this host's drivers have them",
    host: { files: pciDevice("0000:01:00.0", "5", "nvme") },
    detail: /^0000:01:00\.0: has the driver nvme, in group 5 alone$/,
    cure: /give vfio-pci one of them, and all of its group/,
    status: "note",
    beside: [],
  },
];
