// Starts VMs that spin, wait in HLT and rest, and leaves by process.exit while they do: node exit-with-vms.js SPINNING WAITING
import { createVm, type Machine } from "../../vmm/index.js";

const [spinning = "", waiting = ""] = process.argv.slice(2);

/** Runs once it has said something. */
function running(kernel: string): Promise<Machine> {
  return new Promise((resolve) => {
    const vm = createVm(
      { kernel, memoryMib: 32 },
      {
        output: (_bytes, done) => {
          done();
          resolve(vm);
        },
      },
    );
    void vm.start();
  });
}

const [, , rests] = await Promise.all([spinning, waiting, spinning].map(running));
await rests?.pause();
process.exit(5);
