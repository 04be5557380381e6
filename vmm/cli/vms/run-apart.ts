// A VM in a process of its own: detached, or at a terminal that can be left without ending it.
import { print, say } from "../../host/say.js";
import { launchVm } from "../../sdk/launch.js";
import { StateFolder } from "../../sdk/state-folder.js";
import { stopVm } from "../../sdk/stop-vm.js";
import type { VmSpec } from "../../sdk/vm-spec.js";
import { attachTo } from "./attached.js";
import type { RunOptions } from "./run-arguments.js";
import { bootText, type WorkProgress } from "./work-progress.js";

export interface ApartOptions {
  readonly run: RunOptions;
  readonly progress: WorkProgress;
  /** Ends the start. */
  readonly signal: AbortSignal;
}

/** The result is the process's exit code. */
export async function runApart(spec: VmSpec, { run, progress, signal }: ApartOptions): Promise<number> {
  const { isDetached, isInteractive, detachKeys } = run;
  const vm = await launchVm(
    { spec, isBound: false, waitsForAttach: !isDetached, keepsLog: isDetached },
    {
      onNotice: say,
      onBoot: () => {
        progress.show(bootText(spec));
      },
      signal,
    },
  );
  progress.done();
  if (isDetached) {
    print(`${vm.id}\n`);
    vm.process.unref();
    vm.process.stderr?.destroy();
    return 0;
  }
  const state = new StateFolder();
  // Which takes the signals over at once: from here on they are the program's.
  return attachTo(state.folderOf(vm.id).attachSocket, {
    name: spec.name,
    hasTerminal: true,
    isInteractive,
    detachKeys,
    end: async () => {
      await stopVm(state, state.find(vm.id), 0);
    },
  });
}
