// A guest that runs to where it wants a snapshot to be taken, is saved there, and ends: how templates are made.
import type { SnapshotError } from "../errors.js";
import type { VmHost } from "../machine/host-callbacks.js";
import type { Vm } from "../machine/vm.js";

/** Of what the guest says on its way, for an error, `bytes`. */
const KEPT_OUTPUT = 4096;

export interface PointOptions {
  /** Makes the VM, which has not run. */
  readonly make: (host: VmHost) => Vm;
  /** What the guest has said by the command's channel belongs to those that go on from it. */
  readonly keepsCommandOutput?: boolean;
  /** Comes before its start; what it throws ends all. */
  readonly begin: (vm: Vm) => void;
  readonly save: (vm: Vm) => Promise<unknown>;
  /** The error for a guest that has ended before: how, and its last words. */
  readonly missed: (outcome: string, said: string) => SnapshotError;
}

/** Rejects with what these throw, and with what a VM's start does. */
export async function saveAtPoint({ make, begin, save, missed, keepsCommandOutput }: PointOptions): Promise<void> {
  let output = Buffer.alloc(0);
  let saved: Promise<unknown> | undefined;
  const vm = make({
    keepsCommandOutput: keepsCommandOutput === true,
    output: (bytes, done) => {
      output = Buffer.concat([output, bytes]).subarray(-KEPT_OUTPUT);
      done();
    },
    snapshotPoint: () => {
      saved = save(vm).finally(() => {
        vm.stop();
      });
      // It is waited for below.
      saved.catch(() => undefined);
    },
  });
  try {
    begin(vm);
    const { outcome } = await vm.start({ threads: "main-first" });
    if (saved === undefined) throw missed(outcome, output.toString("latin1").trim());
    await saved;
  } finally {
    await vm.close();
  }
}
