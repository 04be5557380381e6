// Runs the benches: `node build/bench/run.js --help`. Figures go to the terminal and, with all
// samples, to bench/results/.
import { mkdirSync, writeFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { dirname, join } from "node:path";
import { parseArgs } from "node:util";
import type { Bench, BenchResult } from "./harness.js";
import { bindings } from "./micro/bindings.bench.js";
import { exits } from "./micro/exits.bench.js";
import { loadAverage, stamp } from "./stamp.js";
import { boot } from "./system/boot.bench.js";
import { devices } from "./system/devices.bench.js";
import { idle } from "./system/idle.bench.js";
import { hosts } from "./system/hosts.bench.js";
import { image } from "./system/image.bench.js";
import { jail } from "./system/jail.bench.js";
import { lab } from "./system/lab.bench.js";
import { memory } from "./system/memory.bench.js";
import { migrate } from "./system/migrate.bench.js";
import { neighbours } from "./system/neighbours.bench.js";
import { oci } from "./system/oci.bench.js";
import { run } from "./system/run.bench.js";
import { runLab } from "./system/run-lab.bench.js";
import { shares } from "./system/shares.bench.js";
import { snapshot } from "./system/snapshot.bench.js";
import { softwareKvm } from "./system/software-kvm.bench.js";
import { start } from "./system/start.bench.js";
import { streams } from "./system/streams.bench.js";
import { userNet } from "./system/user-net.bench.js";
import { firecracker } from "./system/firecracker.bench.js";
import { formatColumns, formatResult } from "./table.js";

const BENCHES: readonly Bench[] = [
  bindings,
  exits,
  start,
  jail,
  firecracker,
  boot,
  devices,
  userNet,
  idle,
  neighbours,
  memory,
  snapshot,
  migrate,
  run,
  runLab,
  oci,
  shares,
  streams,
  softwareKvm,
  hosts,
  lab,
  image,
];
const ROUNDS = 10;
const WARMUPS = 1;
const QUICK_ROUNDS = 3;

const HELP = `usage: node build/bench/run.js [options]

  --list         names of the benches
  --only NAME    run this bench; may be repeated
  --quick        ${String(QUICK_ROUNDS)} rounds: for a first look, not for figures to keep
  --rounds N     rounds of every bench (default ${String(ROUNDS)}, one warm-up round before them)
  --json FILE    where the results go (default bench/results/DATE.json)
`;

interface Failed {
  readonly error: string;
}

function progressLine(): { show: (text: string) => void; clear: () => void } {
  if (!process.stderr.isTTY) return { show: () => undefined, clear: () => undefined };
  return {
    show: (text) => process.stderr.write(`\r${text}\x1b[K`),
    clear: () => process.stderr.write("\r\x1b[K"),
  };
}

async function runOne(bench: Bench, rounds: number): Promise<BenchResult | Failed> {
  const line = progressLine();
  const context = {
    rounds,
    warmups: WARMUPS,
    progress: (text: string) => {
      line.show(`${bench.name}: ${text}`);
    },
  };
  try {
    const before = loadAverage();
    const measured = await bench.run(context);
    const load = `Load average ${String(before)} before, ${String(loadAverage())} after, on ${String(availableParallelism())} CPUs.`;
    const result = { ...measured, notes: [...measured.notes, load] };
    line.clear();
    process.stdout.write(`\n== ${bench.name}: ${bench.about}\n${formatResult(result)}\n`);
    return result;
  } catch (error) {
    line.clear();
    const text = error instanceof Error ? error.message : String(error);
    process.stdout.write(`\n== ${bench.name}: ${bench.about}\ncannot run: ${text}\n`);
    return { error: text };
  }
}

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      list: { type: "boolean" },
      only: { type: "string", multiple: true },
      quick: { type: "boolean" },
      rounds: { type: "string" },
      json: { type: "string" },
      help: { type: "boolean", short: "h" },
    },
  });
  if (values.help === true) {
    process.stdout.write(HELP);
    return 0;
  }
  if (values.list === true) {
    process.stdout.write(
      `${formatColumns(
        BENCHES.map(({ name, about }) => [name, about]),
        2,
      )}\n`,
    );
    return 0;
  }
  const unknown = values.only?.filter((name) => !BENCHES.some((bench) => bench.name === name)) ?? [];
  const rounds = values.rounds === undefined ? (values.quick === true ? QUICK_ROUNDS : ROUNDS) : Number(values.rounds);
  if (unknown.length > 0 || !Number.isInteger(rounds) || rounds < 1) {
    process.stderr.write(
      unknown.length > 0
        ? `No bench is called ${unknown.join(", ")}; see --list\n`
        : "--rounds takes a number from 1\n",
    );
    return 64;
  }
  const chosen = BENCHES.filter(({ name }) => values.only?.includes(name) ?? true);
  const at = stamp(availableParallelism());
  process.stdout.write(
    `${formatColumns(
      Object.entries(at).map(([key, value]) => [key, String(value)]),
      2,
    )}\n`,
  );
  const results: Record<string, BenchResult | Failed> = {};
  for (const bench of chosen) results[bench.name] = await runOne(bench, rounds);
  const file = values.json ?? join("bench/results", `${at.date.replaceAll(":", "-")}.json`);
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, `${JSON.stringify({ stamp: at, rounds, benches: results }, null, 2)}\n`);
  process.stdout.write(`\nall samples: ${file}\n`);
  return Object.values(results).some((result) => "error" in result) ? 1 : 0;
}

process.exitCode = await main();
