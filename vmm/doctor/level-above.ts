// Which hypervisor runs this machine, and the setting with which it hands VT-x or AMD-V on.
// The maker's name in the DMI tables comes first: hypervisors imitate each other's CPUID leaf.
import { onLevelAbove, type Command } from "./checks.js";
import type { CpuidRegisters, HostView } from "./host-view.js";

const HYPERVISOR_LEAF = 0x4000_0000;

export interface Hypervisor {
  readonly name: string;
  /** Fields of /sys/class/dmi/id, one line each. */
  readonly dmi?: RegExp;
  /** Name of the kernel of this system. */
  readonly kernel?: RegExp;
  /** CPUID leaf 0x40000000: EBX, ECX, EDX as text. */
  readonly signature?: string;
  /** One line. */
  readonly cure: string;
  readonly commands: readonly Command[];
}

/** The first that fits. */
export const HYPERVISORS: readonly Hypervisor[] = [
  {
    name: "WSL 2",
    kernel: /microsoft-standard/,
    cure: "set nestedVirtualization=true under [wsl2] in %UserProfile%\\.wslconfig, then: wsl --shutdown",
    commands: [onLevelAbove("wsl --shutdown")],
  },
  {
    name: "Azure",
    dmi: /7783-7084-3265-9085-8269-3286-77/,
    cure: "take a size with nested virtualization (Dv3, Ev3 and later, x64), with the security type Standard",
    commands: [onLevelAbove("az vm resize --resource-group <GROUP> --name <NAME> --size Standard_D4s_v5")],
  },
  {
    name: "Hyper-V",
    dmi: /Microsoft Corporation[\s\S]*Virtual Machine/,
    signature: "Microsoft Hv",
    cure: "with the machine off: Set-VMProcessor -VMName <NAME> -ExposeVirtualizationExtensions $true",
    commands: [onLevelAbove("Set-VMProcessor -VMName <NAME> -ExposeVirtualizationExtensions $true")],
  },
  {
    name: "VirtualBox",
    dmi: /VirtualBox/,
    signature: "VBoxVBoxVBox",
    cure: "with the machine off: VBoxManage modifyvm <NAME> --nested-hw-virt on",
    commands: [onLevelAbove("VBoxManage modifyvm <NAME> --nested-hw-virt on")],
  },
  {
    name: "VMware",
    dmi: /VMware/,
    signature: "VMwareVMware",
    cure: 'with the machine off: vhv.enable = "TRUE" in its .vmx ("Virtualize Intel VT-x/EPT or AMD-V/RVI")',
    commands: [onLevelAbove("echo 'vhv.enable = \"TRUE\"' >><NAME>.vmx")],
  },
  {
    name: "Google Compute Engine",
    dmi: /Google Compute Engine/,
    cure: "create the instance with --enable-nested-virtualization, on a machine type that has it",
    commands: [onLevelAbove("gcloud compute instances create <NAME> --enable-nested-virtualization")],
  },
  {
    name: "Amazon EC2",
    dmi: /Amazon EC2/,
    cure: "take a .metal instance, or a type whose CPU options offer nested virtualization",
    commands: [],
  },
  {
    name: "Parallels",
    dmi: /Parallels/,
    signature: " lrpepyh  vr",
    cure: "with the machine off: prlctl set <NAME> --nested-virt on",
    commands: [onLevelAbove("prlctl set <NAME> --nested-virt on")],
  },
  {
    name: "Xen",
    dmi: /^Xen$|HVM domU/m,
    signature: "XenVMMXenVMM",
    cure: "an HVM domain with hap=1 and nestedhvm=1 in its configuration",
    commands: [onLevelAbove("echo 'nestedhvm = 1' >>/etc/xen/<NAME>.cfg")],
  },
  {
    name: "QEMU's interpreter (TCG)",
    signature: "TCGTCGTCGTCG",
    cure: "run the machine with KVM and -cpu host, or with -cpu max for an emulated AMD-V",
    commands: [onLevelAbove("qemu-system-x86_64 -accel kvm -cpu host")],
  },
  {
    name: "bhyve",
    dmi: /BHYVE/,
    signature: "bhyve bhyve ",
    cure: "bhyve hands no virtualization on: use another hypervisor",
    commands: [],
  },
  {
    name: "KVM",
    dmi: /QEMU|KVM|OpenStack|Proxmox|Red Hat/,
    signature: "KVMKVMKVM\0\0\0",
    cure: "load kvm_intel or kvm_amd with nested=1 there, and give this machine the CPU model host-passthrough",
    commands: [
      onLevelAbove("echo 'options kvm_intel nested=1' >/etc/modprobe.d/kvm-nested.conf   # kvm_amd on AMD"),
      onLevelAbove("modprobe -r kvm_intel && modprobe kvm_intel   # with all machines off"),
      onLevelAbove("virt-xml <NAME> --edit --cpu host-passthrough   # qm set <ID> --cpu host on Proxmox"),
    ],
  },
];

const UNKNOWN: Hypervisor = {
  name: "an unknown hypervisor",
  cure: "turn on nested virtualization for this machine",
  commands: [],
};

function signatureOf({ ebx, ecx, edx }: CpuidRegisters): string {
  const bytes = Buffer.alloc(12);
  [ebx, ecx, edx].forEach((word, index) => bytes.writeUInt32LE(word >>> 0, index * 4));
  return bytes.toString("latin1");
}

export function isVirtualMachine({ files }: HostView): boolean {
  return /^flags\s*:.*\bhypervisor\b/m.test(files.read("/proc/cpuinfo") ?? "");
}

/** What runs this machine; undefined on bare metal. */
export function levelAbove(host: HostView): Hypervisor | undefined {
  const { files } = host;
  if (!isVirtualMachine(host)) return undefined;
  const dmi = ["sys_vendor", "product_name", "bios_vendor", "chassis_asset_tag"]
    .flatMap((name) => files.read(`/sys/class/dmi/id/${name}`) ?? [])
    .join("\n");
  const release = files.read("/proc/sys/kernel/osrelease") ?? "";
  const byName = HYPERVISORS.find((one) => one.kernel?.test(release) === true || one.dmi?.test(dmi) === true);
  if (byName !== undefined) return byName;
  if (files.read("/sys/hypervisor/type") === "xen") return HYPERVISORS.find(({ name }) => name === "Xen");
  const leaf = host.cpuid(HYPERVISOR_LEAF);
  const signature = leaf === undefined ? undefined : signatureOf(leaf);
  return HYPERVISORS.find((one) => one.signature !== undefined && one.signature === signature) ?? UNKNOWN;
}
