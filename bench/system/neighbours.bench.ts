// What a guest that takes what it can does to another VM, and to this host: how soon they answer beside a bomb, compared with an idle VM
// in its place; without limits, and in control groups as the launcher or systemd makes them.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  hasSeries,
  measure,
  ratioAtMost,
  samplesOf,
  type Bench,
  type BenchContext,
  type BenchResult,
  type Failure,
  type Measurements,
  type Target,
  type Variant,
} from "../harness.js";
import { acceleratorInWords } from "../stamp.js";
import { BOMBS, IDLE, LIMITS, BombFolder, type Bomb, type Limits } from "./bombs.js";
import { beside, Neighbour } from "./neighbour.js";

const MEASURED_MS = 3000;
const LIMIT = 1.5;
const RATIOS = ["vm_p50_ms", "vm_p95_ms", "vm_p99_ms", "host_p50_ms", "host_p95_ms"] as const;

function variant(name: string, saved: BombFolder, neighbour: Neighbour, bomb: Bomb, limits?: Limits): Variant {
  return { name, turn: () => beside(neighbour, saved, bomb, limits, MEASURED_MS) };
}

const limitedName = (name: string): string => `${name}, limited`;

async function run(context: BenchContext): Promise<BenchResult> {
  const folder = mkdtempSync(join(tmpdir(), "vmlet-bench-"));
  try {
    context.progress("the guest of the bombs boots");
    const saved = await BombFolder.make(folder);
    context.progress("the neighbour boots");
    const neighbour = await Neighbour.start();
    try {
      const failures: Failure[] = [];
      const variants = [variant(IDLE.name, saved, neighbour, IDLE)];
      for (const bomb of BOMBS) {
        const why = bomb.why?.();
        if (why !== undefined) failures.push({ variant: bomb.name, error: why });
        else {
          variants.push(variant(bomb.name, saved, neighbour, bomb));
          variants.push(variant(limitedName(bomb.name), saved, neighbour, bomb, LIMITS));
        }
      }
      const measured = await measure(variants, { ...context, warmups: 0 });
      return {
        series: measured.series,
        failures: [...failures, ...measured.failures],
        targets: targets(measured),
        notes: [
          `/dev/kvm of this host: ${acceleratorInWords()}. The neighbour: a VM that sleeps until its serial port has a byte, asked`,
          "every 15 ms; the host: /bin/true from its start to its end. Ratios: beside a bomb against beside an idle VM, in the same round.",
          `Limited: ${String(LIMITS.cpuPercent)} % of a processor and the guest's memory with 128 MiB, by control groups around the bomb's monitor.`,
          "Devices: flooded by kernels of a few instructions, since a Linux whose kernel is emulated asks for a hundredth of that.",
          "monitor_percent and vcpu_percent: processor time of the bomb's monitor without its vCPU, and of that; of one processor.",
        ],
      };
    } finally {
      saved.close();
      await neighbour.end();
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function targets(measured: Measurements): Target[] {
  return BOMBS.flatMap(({ name }) =>
    [name, limitedName(name)].flatMap((one) =>
      RATIOS.filter((metric) => hasSeries(measured, one, metric)).map((metric) => {
        const idle = samplesOf(measured, IDLE.name, metric);
        return ratioAtMost(`${metric} beside ${one}`, samplesOf(measured, one, metric), idle, LIMIT);
      }),
    ),
  );
}

export const neighbours: Bench = {
  name: "neighbours",
  about: "how soon a VM and this host answer beside a guest that takes what it can",
  run,
};
