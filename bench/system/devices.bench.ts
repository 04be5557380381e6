// Block and network device in the lab, vmlet against QEMU microvm: the same kernel, initramfs and
// guest program (bench/c/device-load.c), the same disk image and TAP interface on the same host.
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
import { GUEST_MIB, qemuArguments, vmletArguments, type GuestImages } from "./guest.js";
import { LAB_QEMU, LAB_VMLET, LabHost, OUR_KERNEL } from "./lab-host.js";

const DISK_MIB = 64;
const DISK_FILE = "bench/out/device-disk.img";
const DISK = "/input/bench/device-disk.img";
const IMAGES: GuestImages = { ...OUR_KERNEL, initrd: "/input/bench/device-load.cpio", memoryMib: GUEST_MIB };
const PEER = "/input/bench/net-peer";
const TAP = "bench0";
const HOST_ADDRESS = "192.0.2.1";
const GUEST_ADDRESS = "192.0.2.2";
/** Twice what a guest takes, `s`. */
const LIMIT_S = 90;

const NONE = "-";
const BOTH: readonly string[] = ["device-load", "/dev/vda", GUEST_ADDRESS, HOST_ADDRESS];
const NETWORK: readonly string[] = ["device-load", NONE, GUEST_ADDRESS, HOST_ADDRESS];

/** What the guest program prints, and what of it is compared: more is better in all. */
const BLOCK_METRICS = [
  "blk_read_1m_sequential_kib_s",
  "blk_read_4k_random_iops",
  "blk_read_4k_random_depth_16_iops",
] as const;
const NET_METRICS = ["net_round_trips_per_s", "net_guest_to_host_kib_s", "net_host_to_guest_kib_s"] as const;

const OURS = "vmlet";
const QEMU = "QEMU microvm";
const QEMU_VHOST = "QEMU microvm, vhost-net";

const quote = (word: string): string => `'${word.replaceAll("'", "'\\''")}'`;

/** Boots the guest, with the peer running on the host; the guest prints the figures. */
function guest(
  host: LabHost,
  name: string,
  argv: readonly string[],
  status: number,
  metrics: readonly string[],
): Variant {
  const script = `${PEER} ${HOST_ADDRESS} & peer=$!
    timeout ${String(LIMIT_S)} ${argv.map(quote).join(" ")} </dev/null >/output/figures 2>/output/errors
    echo $? >/output/status; kill $peer`;
  return {
    name,
    turn: async () => {
      const files = await host.shell(script);
      const text = (file: string): string => files.get(file)?.toString("utf8").trim() ?? "";
      const sample: Record<string, number> = {};
      for (const [, metric = "", value] of text("figures").matchAll(/^([a-z0-9_]+) (\d+)\r?$/gm)) {
        sample[metric] = Number(value);
      }
      if (text("status") !== String(status) || metrics.some((metric) => sample[metric] === undefined)) {
        throw new Error(`status ${text("status")}: ${text("figures").slice(-300)} ${text("errors")}`);
      }
      return sample satisfies Sample;
    },
  };
}

function vmlet(host: LabHost): Variant {
  const devices = ["--disk", `path=${DISK},readonly`, "--net", `tap=${TAP}`];
  const argv = [...LAB_VMLET, ...vmletArguments(IMAGES, BOTH), ...devices];
  return guest(host, OURS, argv, EXIT_REBOOT, [...BLOCK_METRICS, ...NET_METRICS]);
}

/**
 * QEMU as somebody would set it up who wants it fast: virtio 1, which its virtio-mmio does not use by
 * itself, and the fastest of aio=threads, io_uring and native with cache=writeback and none, with
 * and without a thread of the disk's own (bench/README.md).
 */
function qemu(host: LabHost, name: string, command: readonly string[], vhost: "on" | "off"): Variant {
  const argv = [
    ...[LAB_QEMU, ...qemuArguments(IMAGES, command)],
    // Without ACPI, which our kernel does not have, it names the devices on the command line.
    ...["-machine", "acpi=off", "-global", "virtio-mmio.force-legacy=false"],
    ...["-drive", `file=${DISK},format=raw,if=none,id=disk,readonly=on,cache=writeback,aio=io_uring`],
    ...["-device", "virtio-blk-device,drive=disk"],
    ...["-netdev", `tap,id=net,ifname=${TAP},script=no,downscript=no,vhost=${vhost}`],
    ...["-device", "virtio-net-device,netdev=net"],
  ];
  return guest(host, name, argv, 0, command === NETWORK ? NET_METRICS : [...BLOCK_METRICS, ...NET_METRICS]);
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
    await host.shell(
      `tunctl -t ${TAP} && ifconfig ${TAP} ${HOST_ADDRESS} netmask 255.255.255.0 up && cat ${DISK} >/dev/null`,
    );
    // The guest warms up each load by itself; a round for nothing would only take time.
    const measured = await measure(
      [vmlet(host), qemu(host, QEMU, BOTH, "off"), qemu(host, QEMU_VHOST, NETWORK, "on")],
      { ...context, warmups: 0 },
    );
    return { ...measured, targets: targets(measured), notes: NOTES };
  } finally {
    await host.close();
  }
}

function targets(measured: Measurements): Target[] {
  const list: Target[] = [];
  const compare = (metric: string, other: string): void => {
    if (!hasSeries(measured, OURS, metric) || !hasSeries(measured, other, metric)) return;
    const name = `${metric}: ${other} against vmlet`;
    list.push(ratioAtMost(name, samplesOf(measured, other, metric), samplesOf(measured, OURS, metric), 1));
  };
  for (const metric of [...BLOCK_METRICS, ...NET_METRICS]) compare(metric, QEMU);
  for (const metric of NET_METRICS) compare(metric, QEMU_VHOST);
  return list;
}

const NOTES = [
  "In the lab: AMD-V emulated by QEMU TCG, Debian's kernel and its kvm_amd, 2 CPUs. Times are many times those of hardware.",
  "One vCPU; figures by the guest's clock, after a warm-up of each load. The disk is read with O_DIRECT; its image lies in the host's page cache.",
  "first_second: without any warm-up, as the first requests after the boot meet a monitor.",
  "A target says how many times as much QEMU moves as vmlet does: up to 1 is vmlet's.",
];

export const devices: Bench = {
  name: "devices",
  about: "block and network device in the lab: vmlet, QEMU microvm",
  run,
};
