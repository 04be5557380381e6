// A worker that runs one VM main-first and posts how it has ended; stopped after `stopAfterMs`.
import { parentPort, workerData } from "node:worker_threads";
import { createVm } from "../../vmm/index.js";

const { kernel, stopAfterMs } = workerData as { readonly kernel: string; readonly stopAfterMs: number };
const vm = createVm(
  { kernel, memoryMib: 32 },
  {
    output: (_bytes, done) => {
      setImmediate(done);
    },
  },
);
const timer = setTimeout(() => vm.stop(), stopAfterMs);
const { outcome } = await vm.start({ threads: "main-first" });
clearTimeout(timer);
await vm.close();
parentPort?.postMessage(outcome);
