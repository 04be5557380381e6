// What a caller may ask for (VmConfig) and what the monitor works with (ResolvedConfig).

import type { BalloonConfig, ResolvedBalloon } from "./balloon.js";
import type { DiskConfig, ResolvedDisk } from "./disks.js";
import type { MmdsConfig, ResolvedMmds } from "./mmds.js";
import type { RateLimiterConfig } from "../../devices/virtio/rate-limiter.js";
import type { NetConfig, ResolvedNet } from "./nets.js";
import type { ResolvedShare, ShareConfig } from "./shares.js";
import type { VfioConfig } from "./vfio.js";
import type { ResolvedVsock, VsockConfig } from "./vsock.js";

/** How an ELF kernel that offers both is entered. */
export type BootProtocol = "auto" | "linux64" | "pvh";

/** "transparent": huge ones where the host's kernel finds some. */
export type HugePages = "none" | "transparent" | "2M";

/** The guest's terminal: its serial port, or hvc0, a virtio console, which knows the terminal's size. */
export type ConsoleKind = "serial" | "virtio";

/** A virtual machine as the caller describes it; every field but the kernel has a default. */
export interface VmConfig {
  /** Path of an ELF vmlinux or a bzImage. */
  readonly kernel: string;
  /** Path of an initramfs archive. */
  readonly initrd?: string | undefined;
  /** Kernel command line, added after the default one. */
  readonly cmdline?: string | undefined;
  /** True drops the default command line: `cmdline` is all that the kernel gets. */
  readonly bareCmdline?: boolean | undefined;
  /** Guest RAM in `MiB`. */
  readonly memoryMib?: number | undefined;
  /** Number of vCPUs. */
  readonly cpus?: number | undefined;
  /** Two vCPUs are one core of the guest: 1, or an even number of them. */
  readonly smt?: boolean | undefined;
  /** Pages that the guest's memory is made of: "2M" are those that the host keeps for it (hugetlbfs); default: "none". */
  readonly hugePages?: HugePages | undefined;
  /** Show the guest vmx or svm. */
  readonly nested?: boolean | undefined;
  /** Virtio devices are on a PCI bus, as functions, and not where virtio-mmio has them; the kernel needs drivers for that. */
  readonly pci?: boolean | undefined;
  /** What the guest is shown of the processor: a template's name, or a file's path. */
  readonly cpuTemplate?: string | undefined;
  /** Entry protocol of an ELF kernel. */
  readonly protocol?: BootProtocol | undefined;
  /** Keep the kernel's log off the console. */
  readonly quiet?: boolean | undefined;
  /** virtio disks, /dev/vda first. */
  readonly disks?: readonly DiskConfig[] | undefined;
  /** virtio network devices, eth0 first. */
  readonly nets?: readonly NetConfig[] | undefined;
  /** What the guest is told of itself, by a web server behind those network devices that have `mmds`. */
  readonly mmds?: MmdsConfig | undefined;
  /** Sockets between programs of the guest and of the host. */
  readonly vsock?: VsockConfig | undefined;
  /** Where the guest's terminal is; "virtio" is also the kernel's console unless the command line is bare. */
  readonly console?: ConsoleKind | undefined;
  /** A virtio entropy device: /dev/hwrng. */
  readonly rng?: boolean | undefined;
  /** Of the entropy device, which there is then unless `rng` is false. */
  readonly rngRateLimiter?: RateLimiterConfig | undefined;
  readonly balloon?: BalloonConfig | undefined;
  /** Folders of this host that the guest can mount. */
  readonly shares?: readonly ShareConfig[] | undefined;
  /** PCI devices of this host that the guest is given; it has a PCI bus then, and its kernel needs drivers. */
  readonly vfio?: readonly VfioConfig[] | undefined;
  /** A keyboard behind the i8042 controller, for `Vm.pressCtrlAltDel`; its driver may look for it for a while. */
  readonly keyboard?: boolean | undefined;
  /** Bytes to and from the command that vmlet's init runs (`vmlet.exec=`) take a channel of their own, not the terminal. */
  readonly commandChannel?: boolean | undefined;
}

/** A checked configuration with every default filled in. */
export interface ResolvedConfig {
  readonly kernel: string;
  readonly initrd: string | undefined;
  readonly cmdline: string;
  readonly memoryMib: number;
  readonly cpus: number;
  readonly smt: boolean;
  readonly hugePages: HugePages;
  readonly nested: boolean;
  readonly pci: boolean;
  readonly cpuTemplate: string | undefined;
  readonly protocol: BootProtocol;
  readonly disks: readonly ResolvedDisk[];
  readonly nets: readonly ResolvedNet[];
  readonly mmds: ResolvedMmds | undefined;
  readonly vsock: ResolvedVsock | undefined;
  readonly console: ConsoleKind;
  readonly rng: boolean;
  readonly rngRateLimiter: RateLimiterConfig | undefined;
  readonly balloon: ResolvedBalloon | undefined;
  readonly shares: readonly ResolvedShare[];
  /** Addresses of PCI devices of this host. */
  readonly vfio: readonly string[];
  readonly keyboard: boolean;
  readonly commandChannel: boolean;
}
