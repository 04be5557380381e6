// A VM in a process of its own: detached, or at a terminal that can be left without ending it.
import { print, say } from "../../host/say.js";
import { launchVm } from "../../sdk/launch.js";
import { StateFolder } from "../../sdk/state-folder.js";
import type { VmSpec } from "../../sdk/vm-spec.js";
import { attachTo } from "./attach.js";
import type { RunOptions } from "./run-arguments.js";
import { bootText, type WorkProgress } from "./work-progress.js";

/** The result is the process's exit code. */
export async function runApart(spec: VmSpec, options: RunOptions, progress: WorkProgress): Promise<number> {
  const { isDetached, isInteractive, detachKeys } = options;
  const vm = await launchVm(
    { spec, isBound: false, waitsForAttach: !isDetached, keepsLog: isDetached },
    {
      onNotice: say,
      onBoot: () => {
        progress.show(bootText(spec));
      },
    },
  );
  progress.done();
  if (isDetached) {
    print(`${vm.id}\n`);
    vm.process.unref();
    vm.process.stdout?.destroy();
    return 0;
  }
  const folder = new StateFolder().folderOf(vm.id);
  return attachTo(folder.attachSocket, { name: spec.name, hasTerminal: true, isInteractive, detachKeys });
}
