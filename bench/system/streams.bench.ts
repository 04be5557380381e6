// Bytes through a command's output and input in the lab: vmlet's agent beside a port of QEMU's virtio-serial, the same kernel,
// initramfs and program (bench/c/stream-load.c) on both sides. Each byte is compared where it arrives.
import {
  hasSeries,
  measure,
  ratioAtMost,
  samplesOf,
  type Bench,
  type BenchContext,
  type BenchResult,
  type Measurements,
  type Target,
  type Variant,
} from "../harness.js";
import { initramfsWith, programOfGuests } from "../programs.js";
import { GUEST_MIB, qemuArguments, type GuestImages } from "./guest.js";
import { LAB_QEMU, LAB_VMLET, LabHost, OUR_KERNEL } from "./lab-host.js";

const IMAGES: GuestImages = { ...OUR_KERNEL, initrd: "/input/bench/stream-load.cpio", memoryMib: GUEST_MIB };
const PEER = "/input/bench/stream-peer";
/** Enough for JavaScript to be compiled long before the end, `MiB`. */
const MIB = 128;
const PORT = "/dev/vport0p1";
/** Several times what a guest takes, `s`. */
const LIMIT_S = 300;
const OURS = "vmlet: a command's own output and input";
const QEMU = "QEMU microvm: a port of virtio-serial";
const METRICS = ["out_kib_s", "in_kib_s"] as const;

const quote = (word: string): string => `'${word.replaceAll("'", "'\\''")}'`;
const load = (path: string): string[] => ["stream-load", "both", path, String(MIB)];

/** `script` leaves what the guest's program has said in /output/figures, and what the host's peer has in /output/peer. */
function variant(host: LabHost, name: string, script: string): Variant {
  return {
    name,
    turn: async () => {
      const files = await host.shell(`exec 2>/output/errors\n${script}\ntrue`);
      const text = (file: string): string => files.get(file)?.toString("utf8") ?? "";
      // Each by who receives: a sender is done when what lies between the two has room for the rest.
      const received = (file: string): number => Number(/in_kib_s (\d+)/.exec(text(file))?.[1]);
      const figures = { out_kib_s: received("peer"), in_kib_s: received("figures") };
      if (Object.values(figures).some(Number.isNaN)) {
        throw new Error(["figures", "peer", "errors"].map((file) => `${file}: ${text(file).slice(-300)}`).join("; "));
      }
      return figures;
    },
  };
}

function vmlet(host: LabHost): Variant {
  const { kernel, initrd, memoryMib } = IMAGES;
  const guest = ["--accel", "kvm", "--kernel", kernel, "--initrd", initrd, "--memory", String(memoryMib)];
  const argv = [...LAB_VMLET, "boot", "--quiet", ...guest, "--", ...load("-")];
  return variant(
    host,
    OURS,
    `${PEER} out - ${String(MIB)} | timeout ${String(LIMIT_S)} ${argv.map(quote).join(" ")} 2>/output/figures | ${PEER} in - ${String(MIB)} 2>/output/peer`,
  );
}

function qemu(host: LabHost): Variant {
  const argv = [
    ...[LAB_QEMU, ...qemuArguments(IMAGES, load(PORT))],
    // As in the bench of the devices: virtio 1, named on the command line.
    ...["-machine", "acpi=off", "-global", "virtio-mmio.force-legacy=false"],
    ...[
      "-device",
      "virtio-serial-device",
      "-chardev",
      "pipe,id=c,path=/tmp/port",
      "-device",
      "virtserialport,chardev=c",
    ],
  ];
  return variant(
    host,
    QEMU,
    `rm -f /tmp/port.in /tmp/port.out; mkfifo /tmp/port.in /tmp/port.out
    ${PEER} out - ${String(MIB)} >/tmp/port.in & sender=$!
    ${PEER} in - ${String(MIB)} </tmp/port.out 2>/output/peer & receiver=$!
    ${argv.map(quote).join(" ")} </dev/null >/output/figures & monitor=$!
    # A microvm whose guest is off goes on.
    for second in $(seq ${String(LIMIT_S)}); do
      grep -q in_kib_s /output/figures && break
      kill -0 $monitor || break
      sleep 1
    done
    kill $monitor $sender $receiver; wait`,
  );
}

async function run(context: BenchContext): Promise<BenchResult> {
  context.progress("the lab is starting");
  const host = await LabHost.start([
    { from: initramfsWith("stream-load"), to: "bench/stream-load.cpio" },
    { from: programOfGuests("stream-load"), to: "bench/stream-peer" },
  ]);
  try {
    const measured = await measure([vmlet(host), qemu(host)], { ...context, warmups: 0 });
    return { ...measured, targets: targets(measured), notes: NOTES };
  } finally {
    await host.close();
  }
}

function targets(measured: Measurements): Target[] {
  return METRICS.filter((metric) => [OURS, QEMU].every((name) => hasSeries(measured, name, metric))).map((metric) =>
    ratioAtMost(
      `${metric}: QEMU against vmlet`,
      samplesOf(measured, QEMU, metric),
      samplesOf(measured, OURS, metric),
      1,
    ),
  );
}

const NOTES = [
  "In the lab: AMD-V emulated by QEMU TCG, Debian's kernel and its kvm_amd, 2 CPUs. Times are many times those of hardware.",
  `${String(MIB)} MiB out and then ${String(MIB)} MiB in, by the clock of who receives, from the first byte to the last; pipes on the host.`,
  "A target says how many times as much QEMU moves as vmlet does: up to 1 is vmlet's.",
];

export const streams: Bench = {
  name: "streams",
  about: "bytes of a command in the lab: vmlet's agent, QEMU's virtio-serial",
  run,
};
