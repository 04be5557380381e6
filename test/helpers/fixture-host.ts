// A host for the doctor that exists as text: a tree of /proc, /sys and /dev, and what KVM answers.
import { dirname } from "node:path";
import { INTEL_LAB_PACKAGES } from "../../vmm/lab/programs.js";
import type { CpuidRegisters, FileFacts, GuestView, HostView, KvmView } from "../../vmm/doctor/host-view.js";

/** Text of a file, or facts of one that has none; undefined takes a file of the usual host away. */
export type Entry = string | Partial<FileFacts> | undefined;
export type Tree = Readonly<Record<string, Entry>>;

const FLAGS = "fpu vme de pse tsc msr";
export const INTEL = `vendor_id : GenuineIntel\nmodel name : Intel Xeon\nflags : ${FLAGS} vmx\n`;
export const INTEL_WITHOUT = `vendor_id : GenuineIntel\nmodel name : Intel Xeon\nflags : ${FLAGS}\n`;
export const AMD = `vendor_id : AuthenticAMD\nmodel name : AMD EPYC\nflags : ${FLAGS} svm\n`;
/** In a virtual machine without nested virtualization. */
export const IN_VM = `vendor_id : AuthenticAMD\nmodel name : AMD EPYC\nflags : ${FLAGS} hypervisor\n`;

export const KVM_DEVICE: FileFacts = { kind: "character-device", mode: 0o660, uid: 0, gid: 105, major: 10, minor: 232 };

/** An Intel machine on which a user of the group kvm can do everything. */
const USUAL: Tree = {
  "/proc/cpuinfo": INTEL,
  "/proc/version": "Linux version 6.1.0-28-amd64 (debian-kernel@lists.debian.org)",
  "/proc/sys/kernel/osrelease": "6.1.0-28-amd64",
  "/proc/meminfo": "MemTotal: 16000000 kB\nMemAvailable: 8000000 kB\n",
  "/proc/self/status":
    "VmSize: 900000 kB\nUid:\t1000\t1000\t1000\t1000\nGid:\t1000\t1000\t1000\t1000\nGroups:\t105 1000\nCapEff:\t0000000000000000\nSeccomp:\t0\n",
  "/proc/sys/kernel/seccomp/actions_avail": "kill_process kill_thread trap errno user_notif trace log allow",
  "/proc/self/cgroup": "0::/user.slice\n",
  "/proc/self/limits":
    "Max address space         unlimited            unlimited            bytes\nMax locked memory         unlimited            unlimited            bytes\n",
  "/proc/self/mounts": "udev /dev devtmpfs rw 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n",
  "/proc/self/mountinfo": "25 30 0:5 / /dev rw,nosuid shared:2 - devtmpfs udev rw\n",
  "/etc/passwd": "root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n",
  "/etc/group": "root:x:0:\nkvm:x:105:ann\nann:x:1000:\n",
  "/sys/module/kvm_intel": {},
  "/sys/module/kvm_intel/parameters/nested": "Y",
  "/sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never",
  "/dev/kvm": KVM_DEVICE,
  "/dev/net/tun": {},
  "/dev/vhost-net": { mode: 0o666 },
  "/dev/vhost-vsock": { mode: 0o666 },
  "/usr/lib/qemu/virtiofsd": {},
  // What the lab with VT-x is made of, where it is no program.
  ...Object.fromEntries(
    INTEL_LAB_PACKAGES.filter(([path]) => path.startsWith("/")).map(([path]): [string, Entry] => [path, {}]),
  ),
};

/** A PCI device in an IOMMU group. */
export function pciDevice(address: string, group: string, driver?: string): Tree {
  return {
    [`/sys/bus/pci/devices/${address}/class`]: "0x010802",
    [`/sys/bus/pci/devices/${address}/uevent`]: driver === undefined ? "PCI_CLASS=10802" : `DRIVER=${driver}`,
    [`/sys/kernel/iommu_groups/${group}/devices/${address}/class`]: "0x010802",
  };
}

const WORKS: KvmView = {
  failure: undefined,
  capabilities: [{ name: "KVM_CAP_IRQCHIP", present: true, required: true }],
  maxVcpus: 710,
  mips: 2500,
  quirks: undefined,
};

export interface Fixture {
  readonly files?: Tree;
  readonly environment?: Readonly<Record<string, string>>;
  readonly kvm?: Partial<KvmView>;
  readonly guest?: GuestView;
  /** Errno of open(2) on /dev/kvm. */
  readonly openFails?: string;
  readonly cpuid?: Readonly<Record<number, Partial<CpuidRegisters>>>;
  readonly msrs?: Readonly<Record<number, bigint>>;
  readonly log?: string;
  readonly landlockAbi?: number;
  /** Programs that are not there. */
  readonly without?: readonly string[];
}

/** EBX, ECX and EDX of CPUID leaf 0x40000000 for a name of twelve characters. */
export function signature(name: string): CpuidRegisters {
  const bytes = Buffer.from(name.padEnd(12, "\0"), "latin1");
  return { eax: 0, ebx: bytes.readUInt32LE(0), ecx: bytes.readUInt32LE(4), edx: bytes.readUInt32LE(8) };
}

/** Identity lines for /proc/self/status. */
export function status(fields: { uid?: number; groups?: string; capabilities?: bigint; seccomp?: number }): string {
  const { uid = 1000, groups = "", capabilities = 0n, seccomp = 0 } = fields;
  const ids = `${String(uid)}\t`.repeat(4);
  return `VmSize: 900000 kB\nUid:\t${ids}\nGid:\t${ids}\nGroups:\t${groups}\nCapEff:\t${capabilities.toString(16)}\nSeccomp:\t${String(seccomp)}\n`;
}

export function fixtureHost(fixture: Fixture = {}): HostView {
  const { files = {}, environment = {}, openFails, cpuid = {}, msrs = {}, log, without = [] } = fixture;
  const entries = Object.entries({ ...USUAL, ...files }).filter(([, entry]) => entry !== undefined);
  const tree = new Map(entries);
  const failure =
    openFails === undefined ? undefined : { request: "open", errno: openFails, message: `open: ${openFails}` };
  const failed: Partial<KvmView> = failure === undefined ? {} : { failure, capabilities: [], mips: undefined };
  return {
    files: {
      read: (path) => {
        const entry = tree.get(path);
        return typeof entry === "string" ? entry.trim() : undefined;
      },
      list: (path) => [
        ...new Set(
          [...tree.keys()].flatMap((name) =>
            name.startsWith(`${path}/`) ? (name.slice(path.length + 1).split("/")[0] ?? []) : [],
          ),
        ),
      ],
      facts: (path) => {
        const entry = tree.get(path);
        if (entry === undefined && ![...tree.keys()].some((name) => dirname(name) === path)) return undefined;
        const own = typeof entry === "object" ? entry : {};
        return { kind: "file", mode: 0o644, uid: 0, gid: 0, major: 0, minor: 0, ...own };
      },
    },
    environment,
    kvm: { ...WORKS, ...failed, ...fixture.kvm },
    guest: fixture.guest ?? { hasInitramfs: true, kernels: ["default", "fast"], missingPackages: [] },
    cpuid: (leaf) => ({ eax: 0, ebx: 0, ecx: 0, edx: 0, ...cpuid[leaf] }),
    msr: (index) => msrs[index],
    kernelLog: () => log,
    landlockAbi: fixture.landlockAbi ?? 7,
    findProgram: (name) => (without.includes(name) ? undefined : `/usr/bin/${name}`),
  };
}
