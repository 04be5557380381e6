// The monitor, in the lab, of a VM that runs programs: the bytes of the guest's agent are this process's standard input and output,
// and vmm/sdk/lab-workload.ts, outside, speaks with it. What the console says goes to standard error.
import type { ResolvedConfig } from "../config/types.js";
import { UsageError } from "./usage-error.js";
import { EXIT_SIGNAL_BASE } from "../host/exit-codes.js";
import { say } from "../host/say.js";
import { OutputWriter } from "../host/standard-output.js";
import { chooseAccelerator } from "../lab/accelerator.js";
import type { VmHost } from "../machine/host-callbacks.js";
import { Vm } from "../machine/vm.js";
import { loadDeviceSupport } from "../virtio/device-support.js";
import { CommandInput } from "../host/command-input.js";
import { exitCodeOf } from "./exit-code.js";

const STDOUT = 1;
const STDERR = 2;
const SIGKILL = 9;

/** `config`: a ResolvedConfig as JSON, with the paths of this host. The result is the process's exit code. */
export async function guestInLab([config]: readonly string[]): Promise<number> {
  if (config === undefined) throw new UsageError("vmlet is started so by vmlet alone");
  const resolved = JSON.parse(config) as ResolvedConfig;
  const choice = chooseAccelerator("kvm");
  const events = {
    vanished: () => undefined,
    failed: (why: string) => {
      say(why);
    },
  };
  const agent = new OutputWriter(STDOUT, events);
  const console = new OutputWriter(STDERR, events);
  const host: VmHost = {
    takesViews: true,
    output: (bytes, done) => {
      console.write(bytes, done);
    },
    commandOutput: (bytes, done) => {
      agent.write(bytes, done);
    },
    commandRoom: () => {
      input.resume();
    },
    log: say,
  };
  const vm = Vm.build(resolved, host, {
    known: { quirks: choice.kind === "kvm" ? choice.quirks : undefined },
    deviceSupport: await loadDeviceSupport(resolved),
    hearsOwner: true,
  });
  const input = new CommandInput({
    commandInput: (bytes) => vm.commandInput(bytes),
    // Nobody speaks to the agent any more.
    endCommandInput: () => {
      vm.stop();
    },
  });
  input.open();
  try {
    const { outcome, exitStatus } = await vm.start({ threads: "main-first" });
    return outcome === "killed" ? EXIT_SIGNAL_BASE + SIGKILL : exitCodeOf(outcome, exitStatus);
  } finally {
    input.close();
    vm.closeDevices();
  }
}
