// Runs VMs under test/programs/refuse-calls.c, which must be preloaded, and prints as JSON how each has ended:
//   node refused-calls.js KERNEL THREADS KIND ERRNO
// The first line is of a run without a refusal; then the nth call of the kind is refused, for n from 1 on.
import assert from "node:assert/strict";
import { writeSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import { createVm, VmmError } from "../../vmm/index.js";
import { pool } from "../../vmm/machine/threads.js";
import { libc } from "../../vmm/sys/koffi.js";
import { ownResources } from "./own-resources.js";

export interface RefusedRun {
  /** Which call was refused; 0: none. */
  readonly nth: number;
  /** "ran", or the error's code. */
  readonly result: string;
  readonly message: string;
  readonly cure: string | undefined;
  /** What has been left behind; empty if nothing. */
  readonly left: string;
}

const [kernel = "", threads = "", kind = "", errno = ""] = process.argv.slice(2);
const refuseCalls = libc.func("refuse_calls", "int", ["str", "int", "int"]);

const SETTLE_MS = 10;
const SETTLE_TRIES = 100;

let calls = 0;

async function run(nth: number): Promise<Pick<RefusedRun, "result" | "message" | "cure">> {
  let vm;
  refuseCalls(kind, nth, Number(errno));
  try {
    // With one vCPU no thread is started: libuv leaks a descriptor itself when a new thread's loop gets no other.
    vm = createVm({ kernel, memoryMib: 32, cpus: kind === "eventfd" ? 1 : 2 }, { output: (_bytes, done) => done() });
    const { outcome, exitStatus } = await vm.start({ threads: threads === "threads" ? "threads" : "main-first" });
    return { result: "ran", message: `${outcome} ${String(exitStatus)}`, cure: undefined };
  } catch (error) {
    if (error instanceof VmmError) return { result: error.code, message: error.message, cure: error.cure };
    return { result: "defect", message: error instanceof Error ? String(error.stack) : String(error), cure: undefined };
  } finally {
    await vm?.close();
    await pool.endIdle();
    calls = refuseCalls("", 0, 0);
  }
}

function print(line: RefusedRun): void {
  // At once: what waits to be written would count as left behind.
  writeSync(1, `${JSON.stringify(line)}\n`);
}

/** What is left after a run, once threads that were joined have gone: the kernel lists one a moment longer. */
async function after(before: string): Promise<string> {
  let now = JSON.stringify(ownResources());
  for (let tries = 0; now !== before && tries < SETTLE_TRIES; tries++) {
    await delay(SETTLE_MS);
    now = JSON.stringify(ownResources());
  }
  return now === before ? "" : `${before} ${now}`;
}

// Once without a refusal, so that everything is loaded: what that keeps is not left behind. A worker opens the process's
// streams, but it depends on the guest's speed whether this run starts one.
assert.ok(process.stdout.writable && process.stderr.writable);
print({ nth: 0, ...(await run(0)), left: "" });
for (let nth = 1, isMade = true; isMade; nth++) {
  const before = JSON.stringify(ownResources());
  const result = await run(nth);
  isMade = calls >= nth;
  if (isMade) print({ nth, ...result, left: await after(before) });
}
