// Block and network device in the lab, vmlet against QEMU microvm (virtio-mmio) and q35 (virtio-pci): the same kernel, initramfs
// and guest program (bench/c/device-load.c), the same disk image and TAP interfaces on the same host.
import { mkdirSync, writeFileSync } from "node:fs";
import { randomBytes } from "node:crypto";
import { EXIT_REBOOT } from "../../vmm/host/exit-codes.js";
import {
  hasSeries,
  measure,
  ratioAtMost,
  samplesOf,
  type Bench,
  type BenchContext,
  type BenchResult,
  type Measurements,
  type Sample,
  type Target,
  type Variant,
} from "../harness.js";
import { compileProgram, initramfsWith } from "../programs.js";
import { figuresOf, FIRST_MAC, NETWORK_LOADS } from "./device-load.js";
import { qemuArguments, vmletArguments, type GuestImages } from "./guest.js";
import { LAB_QEMU, LAB_VMLET, LabHost, OUR_KERNEL } from "./lab-host.js";

const DISK_MIB = 64;
const DISK_FILE = "bench/out/device-disk.img";
const DISK = "/input/bench/device-disk.img";
const PEER = "/input/bench/net-peer";
/** Several times what a guest takes, `s`. */
const LIMIT_S = 180;

/** What the guest program prints; more is better in all. */
const BLOCK_METRICS = [
  "blk_read_4k_random_iops",
  "blk_read_4k_random_depth_16_iops",
  "blk_read_1m_sequential_kib_s",
  "blk_read_4k_random_first_second_iops",
] as const;

/** An interface of the guest: by a TAP device, with or without the host kernel's vhost-net. */
interface Interface {
  /** What its metrics begin with. */
  readonly name: string;
  readonly tap: string;
  readonly mac: string;
  readonly host: string;
  readonly guest: string;
  readonly vhost: "on" | "off";
}

const PLAIN: Interface = {
  name: "net",
  tap: "bench0",
  mac: FIRST_MAC,
  host: "192.0.2.1",
  guest: "192.0.2.2",
  vhost: "off",
};
const VHOST: Interface = {
  name: "net_vhost",
  tap: "bench1",
  mac: "52:54:00:00:00:02",
  host: "198.51.100.1",
  guest: "198.51.100.2",
  vhost: "on",
};

/** How the guest finds its devices. */
interface Bus {
  readonly images: GuestImages;
  readonly ours: string;
  readonly theirs: string;
  readonly vmlet: readonly string[];
  /** QEMU's machine, and what else it is told. */
  readonly machine: string;
  readonly qemu: readonly string[];
  /** How QEMU calls a device on it, and what all of them are told. */
  readonly qemuDevice: readonly string[];
}

const MMIO: Bus = {
  images: { ...OUR_KERNEL, initrd: "/input/bench/device-load.cpio" },
  ours: "vmlet",
  theirs: "QEMU microvm",
  vmlet: [],
  // Virtio 1, which its virtio-mmio does not use by itself; and without ACPI, which the kernel does not have, it names the devices
  // on the command line.
  machine: "microvm,acpi=off",
  qemu: ["-global", "virtio-mmio.force-legacy=false"],
  qemuDevice: ["device"],
};
const PCI: Bus = {
  images: { ...MMIO.images, hasPci: true },
  ours: "vmlet --pci",
  theirs: "QEMU q35",
  vmlet: ["--pci"],
  machine: "q35",
  qemu: [],
  // No program of the firmware's for a boot from the network.
  qemuDevice: ["pci", "romfile="],
};

const quote = (word: string): string => `'${word.replaceAll("'", "'\\''")}'`;

function loadOf(interfaces: readonly Interface[]): readonly string[] {
  return ["device-load", "/dev/vda", ...interfaces.flatMap(({ name, guest, host }) => [name, guest, host])];
}

function metricsOf(interfaces: readonly Interface[]): readonly string[] {
  return [...BLOCK_METRICS, ...interfaces.flatMap(({ name }) => NETWORK_LOADS.map((load) => `${name}_${load}`))];
}

/** Boots the guest, with the peer running on the host; the guest prints the figures. */
function guest(
  host: LabHost,
  name: string,
  argv: readonly string[],
  status: number,
  metrics: readonly string[],
): Variant {
  const script = `${PEER} 0.0.0.0 & peer=$!
    timeout ${String(LIMIT_S)} ${argv.map(quote).join(" ")} </dev/null >/output/figures 2>/output/errors
    echo $? >/output/status; kill $peer`;
  return {
    name,
    turn: async () => {
      const files = await host.shell(script);
      const text = (file: string): string => files.get(file)?.toString("utf8").trim() ?? "";
      const sample = figuresOf(text("figures"));
      if (text("status") !== String(status) || metrics.some((metric) => sample[metric] === undefined)) {
        throw new Error(`status ${text("status")}: ${text("figures").slice(-300)} ${text("errors").slice(-300)}`);
      }
      return sample satisfies Sample;
    },
  };
}

function vmlet(host: LabHost, bus: Bus, interfaces: readonly Interface[]): Variant {
  const argv = [
    ...[...LAB_VMLET, ...vmletArguments(bus.images, loadOf(interfaces)), ...bus.vmlet],
    ...["--disk", `path=${DISK},readonly`],
    ...interfaces.flatMap(({ tap, mac, vhost }) => ["--net", `tap=${tap},mac=${mac},vhost=${vhost}`]),
  ];
  return guest(host, bus.ours, argv, EXIT_REBOOT, metricsOf(interfaces));
}

/**
 * QEMU as somebody would set it up who wants it fast: the fastest of aio=threads, io_uring and native with cache=writeback and
 * none, with and without a thread of the disk's own (bench/README.md).
 */
function qemu(host: LabHost, bus: Bus, interfaces: readonly Interface[]): Variant {
  const device = (name: string, ...words: string[]): string[] => {
    const [suffix = "", ...all] = bus.qemuDevice;
    return ["-device", [`virtio-${name}-${suffix}`, ...all, ...words].join(",")];
  };
  const argv = [
    ...[LAB_QEMU, ...qemuArguments(bus.images, loadOf(interfaces), "host", bus.machine), ...bus.qemu],
    ...["-drive", `file=${DISK},format=raw,if=none,id=disk,readonly=on,cache=writeback,aio=io_uring`],
    ...device("blk", "drive=disk"),
    ...interfaces.flatMap(({ name, tap, mac, vhost }) => [
      ...["-netdev", `tap,id=${name},ifname=${tap},script=no,downscript=no,vhost=${vhost}`],
      ...device("net", `netdev=${name}`, `mac=${mac}`),
    ]),
  ];
  return guest(host, bus.theirs, argv, 0, metricsOf(interfaces));
}

async function run(context: BenchContext): Promise<BenchResult> {
  context.progress("the lab is starting");
  mkdirSync("bench/out", { recursive: true });
  writeFileSync(DISK_FILE, randomBytes(DISK_MIB * 2 ** 20));
  const host = await LabHost.start([
    { from: initramfsWith("device-load"), to: "bench/device-load.cpio" },
    { from: compileProgram("net-peer"), to: "bench/net-peer" },
    { from: DISK_FILE, to: "bench/device-disk.img" },
  ]);
  try {
    // The image in the host's page cache: what is compared is monitors, not the lab's own disk.
    const has = await host.shell(
      `${[PLAIN, VHOST].map(({ tap, host }) => `tunctl -t ${tap} && ifconfig ${tap} ${host} netmask 255.255.255.0 up`).join(" && ")}
      cat ${DISK} >/dev/null
      test -c /dev/vhost-net && touch /output/vhost; type ${LAB_QEMU} >/dev/null && touch /output/qemu; true`,
    );
    const interfaces = has.has("vhost") ? [PLAIN, VHOST] : [PLAIN];
    const variants = [MMIO, PCI].flatMap((bus) => [
      vmlet(host, bus, interfaces),
      ...(has.has("qemu") ? [qemu(host, bus, interfaces)] : []),
    ]);
    // The guest warms up each load by itself; a round for nothing would only take time.
    const measured = await measure(variants, { ...context, warmups: 0 });
    const missing = [
      ...(has.has("vhost") ? [] : ["No rows with vhost-net: the lab's host has no /dev/vhost-net."]),
      ...(has.has("qemu") ? [] : [`No rows of QEMU: the lab's host has no ${LAB_QEMU}.`]),
    ];
    return { ...measured, targets: targets(measured), notes: [...NOTES, ...missing] };
  } finally {
    await host.close();
  }
}

function targets(measured: Measurements): Target[] {
  return [MMIO, PCI].flatMap(({ ours, theirs }) =>
    metricsOf([PLAIN, VHOST])
      .filter((metric) => hasSeries(measured, ours, metric) && hasSeries(measured, theirs, metric))
      .map((metric) => {
        const name = `${metric}: ${theirs} against ${ours}`;
        return ratioAtMost(name, samplesOf(measured, theirs, metric), samplesOf(measured, ours, metric), 1);
      }),
  );
}

const NOTES = [
  "In the lab: AMD-V emulated by QEMU TCG, Debian's kernel and its kvm_amd, 2 CPUs. Times are many times those of hardware.",
  "One vCPU; figures by the guest's clock, after a warm-up of each load. The disk is read with O_DIRECT; its image lies in the host's page cache.",
  "vmlet's own kernel on both sides. net_vhost: the guest's second interface, with vhost-net.",
  "first_second: without any warm-up, as the first requests after the boot meet a monitor.",
  "A target says how many times as much QEMU moves as vmlet does: up to 1 is vmlet's.",
];

export const devices: Bench = {
  name: "devices",
  about: "block and network device in the lab: vmlet and QEMU, by virtio-mmio and virtio-pci",
  run,
};
