// What one exit costs: KVM_RUN, a port write, its answer, and back into the guest. The product's
// whole exit path and its core, against the same guest in a C loop, on this host's /dev/kvm.
import type { BusDevice } from "../../devices/contracts.js";
import { Bus } from "../../vmm/vcpu/bus.js";
import { KVM_RUN } from "../../vmm/sys/kvm-abi.js";
import { dispatchExit, runVcpu } from "../../vmm/vcpu/loop.js";
import { ThreadMachine } from "../../vmm/machine/thread-machine.js";
import {
  hasSeries,
  measure,
  atMost,
  samplesOf,
  type Bench,
  type BenchContext,
  type BenchResult,
  type Failure,
  type Variant,
} from "../harness.js";
import { compileProgram } from "../programs.js";
import { pairwise } from "../statistics.js";
import { acceleratorInWords } from "../stamp.js";
import { loadFfiNapi } from "./ffi-napi.js";
import { LineServer } from "./line-server.js";
import { GUEST_PORT, userModeGuest, type UserModeGuest } from "./user-mode-guest.js";

const EXITS = 4000;
const METRIC = "exit_round_trip_ns";
const OURS = "vmlet, whole exit path";
/** What our exit may cost above C's, `ns`. */
const LIMIT_NS = 2000;

/** Counts the guest's writes and calls back at the last one. */
function countingDevice(last: number, onLast: () => void): BusDevice & { count: number } {
  return {
    name: "bench",
    count: 0,
    read: () => 0,
    write() {
      if (++this.count === last) onLast();
    },
  };
}

function sample(started: number, count: number): Record<string, number> {
  const elapsedMs = performance.now() - started;
  if (count !== EXITS) throw new Error(`${String(count)} writes arrived, not ${String(EXITS)}`);
  return { [METRIC]: (elapsedMs * 1e6) / EXITS };
}

/** runVcpu with the machine of a vCPU thread: every device, counters, the ring of held-back writes. */
function wholePath(guest: UserModeGuest): Variant {
  return {
    name: OURS,
    turn: () => {
      const machine = new ThreadMachine(guest.descriptor(), 0, guest.vcpu);
      const device = countingDevice(EXITS, () => {
        machine.stop("killed");
      });
      machine.pio.attach(GUEST_PORT, 1, device);
      const started = performance.now();
      runVcpu(guest.vcpu, machine.pio, machine.mmio, machine);
      return sample(started, device.count);
    },
  };
}

function core(name: string, guest: UserModeGuest, enter: () => void): Variant {
  return {
    name,
    turn: () => {
      const pio = new Bus("pio");
      const mmio = new Bus("mmio");
      const device = countingDevice(EXITS, () => undefined);
      pio.attach(GUEST_PORT, 1, device);
      const started = performance.now();
      while (device.count < EXITS) {
        enter();
        const outcome = dispatchExit(guest.vcpu.run, pio, mmio);
        if (outcome !== "handled") throw new Error(`the guest's exit is ${outcome}`);
      }
      return sample(started, device.count);
    },
  };
}

function ffiNapiCore(guest: UserModeGuest): Variant {
  const { ioctl } = loadFfiNapi().library(null, { ioctl: ["int", ["int", "ulong", "long"]] });
  if (ioctl === undefined) throw new Error("ioctl was not bound");
  return core("ffi-napi: ioctl, dispatchExit", guest, () => {
    if (ioctl(guest.vcpu.fd, KVM_RUN, 0) < 0) throw new Error("KVM_RUN has failed");
  });
}

async function run(context: BenchContext): Promise<BenchResult> {
  const loop = new LineServer(compileProgram("exit-loop"));
  const guest = userModeGuest();
  const failures: Failure[] = [];
  const variants: Variant[] = [
    { name: "C", turn: async () => ({ [METRIC]: await loop.ask(String(EXITS)) }) },
    wholePath(guest),
    core("vmlet: enter, dispatchExit", guest, () => {
      while (!guest.vcpu.enter());
    }),
  ];
  try {
    variants.push(ffiNapiCore(guest));
  } catch (error) {
    failures.push({ variant: "ffi-napi", error: error instanceof Error ? error.message : String(error) });
  }
  try {
    const measured = await measure(variants, context);
    const targets = hasSeries(measured, OURS, METRIC)
      ? [
          atMost(
            "an exit round trip costs this much more than in C",
            pairwise(samplesOf(measured, OURS, METRIC), samplesOf(measured, "C", METRIC), (a, b) => a - b),
            LIMIT_NS,
            "ns",
            0,
          ),
        ]
      : [];
    return {
      series: measured.series,
      failures: [...failures, ...measured.failures],
      targets,
      notes: [`/dev/kvm of this host: ${acceleratorInWords()}. ${String(EXITS)} exits a round.`],
    };
  } finally {
    loop.close();
    guest.close();
  }
}

export const exits: Bench = { name: "exits", about: "one exit of the guest and back: vmlet against a C loop", run };
