// A network in user mode over passt's stream, and with passt at the guest's queues (vhost-user): the same guest, program and
// peer as the bench of the devices (bench/c/device-load.c, net-peer.c).
import { spawn } from "node:child_process";
import { once } from "node:events";
import { passtWithVhostUser } from "../../vmm/virtio/backends/passt-program.js";
import { USER_NET_GUEST, USER_NET_HOST } from "../../vmm/config/user-net.js";
import { EXIT_REBOOT } from "../../vmm/host/exit-codes.js";
import { acceleratorKind, hasHardwareVirtualization } from "../../vmm/host/facts.js";
import { V8_FLAGS } from "../../vmm/host/v8-flags.js";
import {
  measure,
  ratioAtMost,
  samplesOf,
  type Bench,
  type BenchContext,
  type BenchResult,
  type Sample,
  type Variant,
} from "../harness.js";
import { compileProgram, initramfsWith } from "../programs.js";
import { acceleratorInWords } from "../stamp.js";
import { figuresOf, FIRST_MAC, NETWORK_LOADS } from "./device-load.js";
import { GUEST_MIB, vmletArguments } from "./guest.js";

const STREAM = "stream";
const VHOST_USER = "vhost-user";
const NAME = "net";
/** A kernel that is interpreted boots for long, `s`. */
const LIMIT_S = 180;
const METRICS = NETWORK_LOADS.map((load) => `${NAME}_${load}`);

function variant(name: string, vhost: "on" | "off"): Variant {
  const kind = hasHardwareVirtualization(acceleratorKind()) ? "default" : "fast";
  const images = {
    kernel: `guest/out/${kind}/vmlinux`,
    initrd: initramfsWith("device-load"),
    memoryMib: GUEST_MIB,
  };
  const argv = [
    ...[
      ...V8_FLAGS,
      "dist/vmlet.js",
      ...vmletArguments(images, ["device-load", "-", NAME, USER_NET_GUEST, USER_NET_HOST]),
    ],
    ...["--net", `user,mac=${FIRST_MAC},vhost=${vhost}`],
  ];
  return {
    name,
    turn: async () => {
      const peer = spawn(compileProgram("net-peer"), ["127.0.0.1"], { stdio: "ignore" });
      try {
        const monitor = spawn(process.execPath, argv, { stdio: ["ignore", "pipe", "pipe"], timeout: LIMIT_S * 1000 });
        let text = "";
        for (const output of [monitor.stdout, monitor.stderr]) {
          output.setEncoding("latin1").on("data", (chunk: string) => (text += chunk));
        }
        const [status] = (await once(monitor, "close")) as [number | null];
        const sample = figuresOf(text);
        if (status !== EXIT_REBOOT || METRICS.some((metric) => sample[metric] === undefined)) {
          throw new Error(`status ${String(status)}: ${text.slice(-300)}`);
        }
        return sample satisfies Sample;
      } finally {
        peer.kill();
      }
    },
  };
}

async function run(context: BenchContext): Promise<BenchResult> {
  const variants = [variant(STREAM, "off"), ...(passtWithVhostUser() === undefined ? [] : [variant(VHOST_USER, "on")])];
  // The guest warms up each load by itself; a round for nothing would only take time.
  const measured = await measure(variants, { ...context, warmups: 0 });
  return {
    ...measured,
    targets:
      variants.length < 2
        ? []
        : METRICS.map((metric) => {
            const [stream, vhostUser] = [STREAM, VHOST_USER].map((name) => samplesOf(measured, name, metric));
            return ratioAtMost(`${metric}: ${STREAM} against ${VHOST_USER}`, stream ?? [], vhostUser ?? [], 1);
          }),
    notes: [
      `${acceleratorInWords()}. One vCPU; figures by the guest's clock, after a warm-up of each load; TCP with a program of this host.`,
      "first_second: without any warm-up, as the first requests after the boot meet a monitor.",
      "A target says how many times as much the stream moves: up to 1 is vhost-user's.",
      ...(variants.length > 1 ? [] : ["No rows of vhost-user: the passt of this host does not speak it."]),
    ],
  };
}

export const userNet: Bench = {
  name: "user-net",
  about: "a network in user mode: passt over its stream, and by vhost-user",
  run,
};
