// What a call into C costs: koffi, as the product uses it and with its own structs, and ffi-napi,
// against C. Three calls: two integers, a buffer of 64 bytes, a struct of 32.
import Benchmark from "benchmark";
import { resolve } from "node:path";
import { koffi } from "../../vmm/sys/koffi.js";
import {
  hasSeries,
  measure,
  ratioAtMost,
  samplesOf,
  type Bench,
  type BenchContext,
  type BenchResult,
  type Failure,
  type Target,
  type Variant,
} from "../harness.js";
import { compileLibrary, compileProgram } from "../programs.js";
import { loadFfiNapi } from "./ffi-napi.js";
import { LineServer } from "./line-server.js";

const BUFFER_BYTES = 64;
const REGION_BYTES = 32;
/** A turn of Benchmark.js, `s`. */
const TURN_S = 0.15;
const C_CALLS = 2_000_000;

type Call = "add" | "ends" | "region_pages";
type Calls = Readonly<Record<Call, () => number>>;

const METRICS: Readonly<Record<Call, string>> = {
  add: "call_two_integers_ns",
  ends: "call_buffer_64_ns",
  region_pages: "call_struct_32_ns",
};

/** The module that the product loads can do more than the product asks of it. */
interface KoffiTypes {
  readonly struct: (name: string, fields: Readonly<Record<string, string>>) => unknown;
}

function koffiBuffers(library: string): Calls {
  const lib = koffi.load(library);
  const add = lib.func("add", "int", ["int", "int"]);
  const ends = lib.func("ends", "uint32_t", ["void *", "size_t"]);
  const pages = lib.func("region_pages", "uint32_t", ["void *"]);
  const bytes = new Uint8Array(BUFFER_BYTES).fill(1);
  const region = new DataView(new ArrayBuffer(REGION_BYTES));
  return {
    add: () => add(20, 22),
    ends: () => ends(bytes, BUFFER_BYTES),
    region_pages: () => {
      region.setUint32(0, 1, true);
      region.setBigUint64(16, 1048576n, true);
      return pages(region);
    },
  };
}

function koffiStructs(library: string): Calls {
  const { struct } = koffi as unknown as KoffiTypes;
  struct("BenchRegion", { slot: "uint32_t", flags: "uint32_t", gpa: "uint64_t", size: "uint64_t", hva: "uint64_t" });
  const calls = koffiBuffers(library);
  const pages = koffi.load(library).func("region_pages", "uint32_t", ["const BenchRegion *"]) as unknown as (
    region: object,
  ) => number;
  return { ...calls, region_pages: () => pages({ slot: 1, flags: 0, gpa: 0, size: 1048576, hva: 0 }) };
}

function ffiNapi(library: string): Calls {
  const { library: load, struct, array } = loadFfiNapi();
  const Region = struct({ slot: "uint32", flags: "uint32", gpa: "uint64", size: "uint64", hva: "uint64" });
  const Bytes = array("uint8");
  const lib = load(library, {
    add: ["int", ["int", "int"]],
    ends: ["uint32", ["pointer", "size_t"]],
    region_pages: ["uint32", ["pointer"]],
  });
  const { add, ends, region_pages: pages } = lib;
  if (add === undefined || ends === undefined || pages === undefined) throw new Error("a function was not bound");
  const bytes = new Bytes(new Array<number>(BUFFER_BYTES).fill(1));
  return {
    add: () => add(20, 22),
    ends: () => ends(bytes.buffer, BUFFER_BYTES),
    region_pages: () => pages(new Region({ slot: 1, flags: 0, gpa: 0, size: 1048576, hva: 0 }).ref()),
  };
}

const EXPECTED: Readonly<Record<Call, number>> = { add: 42, ends: 2, region_pages: 257 };

function callNames(calls: Calls): Call[] {
  return Object.keys(calls) as Call[];
}

/** Nanoseconds a call by Benchmark.js; throws what the call throws. */
function nanoseconds(name: string, call: () => number): number {
  const run = new Benchmark(name, call, { minTime: TURN_S / 3, maxTime: TURN_S }).run({ async: false });
  const { error } = run as { error?: unknown };
  if (error !== undefined) throw error instanceof Error ? error : new Error("Benchmark.js has failed");
  return run.stats.mean * 1e9;
}

function variantOf(name: string, calls: Calls): Variant {
  for (const call of callNames(calls)) {
    const value = calls[call]();
    if (value !== EXPECTED[call]) throw new Error(`${call} answers ${String(value)}, not ${String(EXPECTED[call])}`);
  }
  return {
    name,
    turn: () => Object.fromEntries(callNames(calls).map((call) => [METRICS[call], nanoseconds(call, calls[call])])),
  };
}

async function run(context: BenchContext): Promise<BenchResult> {
  const library = resolve(compileLibrary("callee"));
  const loop = new LineServer(compileProgram("call-loop"), [library]);
  const inC: Variant = {
    name: "C",
    turn: async () => {
      const sample: Record<string, number> = {};
      for (const [call, metric] of Object.entries(METRICS)) {
        sample[metric] = await loop.ask(`${call} ${String(C_CALLS)}`);
      }
      return sample;
    },
  };
  const variants: Variant[] = [inC];
  const failures: Failure[] = [];
  for (const [name, make] of [
    ["koffi, bytes laid out by hand", koffiBuffers],
    ["koffi.struct", koffiStructs],
    ["ffi-napi", ffiNapi],
  ] as const) {
    try {
      variants.push(variantOf(name, make(library)));
    } catch (error) {
      failures.push({ variant: name, error: error instanceof Error ? error.message : String(error) });
    }
  }
  try {
    const measured = await measure(variants, context);
    const targets: Target[] = [];
    if (hasSeries(measured, "ffi-napi", METRICS.add)) {
      for (const metric of Object.values(METRICS)) {
        const ours = samplesOf(measured, "koffi, bytes laid out by hand", metric);
        targets.push(
          ratioAtMost(`${metric}: koffi against ffi-napi`, ours, samplesOf(measured, "ffi-napi", metric), 1),
        );
      }
    }
    return {
      series: measured.series,
      failures: [...failures, ...measured.failures],
      targets,
      notes: ["Native calls of this process, no KVM. The struct is filled anew for each call, as an ioctl needs it."],
    };
  } finally {
    loop.close();
  }
}

export const bindings: Bench = {
  name: "bindings",
  about: "a call into C: koffi and ffi-napi against C",
  run,
};
