// A second thread that ends the process when one input takes too long, and says which. The event loop of the first is the one
// that hangs, so nothing there can.
import { writeSync } from "node:fs";
import { isMainThread, Worker, workerData } from "node:worker_threads";

/** `ms` of processor time that one input may take, hundreds of times what any does: a busy host takes none of that. */
const LIMIT_MS = 2000;
const LOOK_MS = 500;

interface Watched {
  /** Count of inputs so far, and the length of the one that runs; 0 inputs: nothing runs. */
  readonly state: Int32Array;
  readonly input: Uint8Array;
}

/** Returns what is to be told of each input, and a way to end. */
export function watch(maxLength: number): { readonly before: (input: Uint8Array) => void; readonly stop: () => void } {
  const watched: Watched = {
    state: new Int32Array(new SharedArrayBuffer(8)),
    input: new Uint8Array(new SharedArrayBuffer(maxLength)),
  };
  const worker = new Worker(new URL(import.meta.url), { workerData: watched, execArgv: [] });
  worker.unref();
  const { state, input } = watched;
  return {
    before: (next) => {
      input.set(next);
      state[1] = next.length;
      state[0] = ((state[0] ?? 0) + 1) | 0;
    },
    stop: () => void worker.terminate(),
  };
}

function guard({ state, input }: Watched): void {
  let last = 0;
  let since = usedMs();
  setInterval(() => {
    const now = Atomics.load(state, 0);
    if (now !== last || now === 0) {
      last = now;
      since = usedMs();
      return;
    }
    if (usedMs() - since < LIMIT_MS) return;
    const bytes = Buffer.from(input.slice(0, state[1]));
    writeSync(2, `An input takes more than ${String(LIMIT_MS)} ms: ${bytes.toString("base64")}\n`);
    process.kill(process.pid, "SIGKILL");
  }, LOOK_MS);
}

function usedMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}

if (!isMainThread) guard(workerData as Watched);
