// `vmlet boot --from-template`: the guest goes on from where one like it was, once, before it got its command.
import type { RestoreBlock } from "../../devices/pseudo/restore-block.js";
import type { ResolvedConfig } from "../config/types.js";
import { ConfigError, SnapshotError, VmStateError } from "../errors.js";
import type { Quirks } from "../fixups/quirks.js";
import { EXIT_SIGNAL_BASE } from "../host/exit-codes.js";
import { say } from "../host/say.js";
import { onEndSignals } from "../sys/end-signals.js";
import type { OpenSnapshot } from "../snapshot/restore.js";
import { becomeAnother, freshIdentity } from "../snapshot/identity.js";
import { ProgramTemplate } from "../snapshot/program-template.js";
import { openTemplate, templatePath } from "../snapshot/template.js";
import type { Choice } from "../lab/accelerator.js";
import { cpuTemplates } from "./cpu-templates.js";
import { argumentBytes } from "./argument-bytes.js";
import type { BootOptions } from "./arguments.js";
import { showBooting } from "./boot-progress.js";
import { isInteractive, SELF_DESCRIPTION } from "./interactive.js";
import { runGuest } from "./run-guest.js";

const SHELL = ["/bin/sh", "-l"];
/** What the guest's terminal is if nobody says. */
const DEFAULT_TERM = "vt100";

export async function bootFromTemplate(options: BootOptions, config: ResolvedConfig, choice: Choice): Promise<number> {
  if (choice.kind === "lab") {
    throw new ConfigError([
      "--from-template: the lab keeps no templates; leave one of --from-template and --accel out",
    ]);
  }
  if (!config.cmdline.includes("vmlet.template")) {
    throw new ConfigError([
      "--from-template needs vmlet's own init; --no-initrd, --bare-cmdline and rdinit= have none",
    ]);
  }
  const known = { quirks: choice.quirks };
  const usesTerminal = isInteractive();
  const block = restoreBlock(options, usesTerminal);
  // A terminal has a size and modes, which its program finds at its start.
  const program = usesTerminal ? undefined : new ProgramTemplate(templatePath(config), block, config.shares);
  const { report, metrics, control, jail } = options;
  const run = {
    config,
    outputs: { report, metrics, control },
    jail,
    readsInput: options.command.length > 0,
    runsCommand: true,
    usesTerminal,
    kernel: undefined,
    progress: undefined,
  };
  // The end of what it reads comes apart from the bytes, when the guest may wait for nothing else.
  const hearsOwner = control !== undefined || run.readsInput;
  const ready = program?.open();
  if (ready !== undefined) {
    return runGuest({
      ...run,
      snapshot: ready.id,
      make: (host, deviceSupport) => {
        const vm = ready.restore(host, { known, deviceSupport, hearsOwner });
        becomeAnother(vm);
        return vm;
      },
    });
  }
  const template = await templateOf(options, config, known);
  if (typeof template === "number") return template;
  // A process in the jail writes no file for others.
  const holdsProgram = jail === "off" && program?.isKnown() === true;
  return runGuest({
    ...run,
    // The next guest with this command must not find it in its channel.
    holdsInput: holdsProgram,
    snapshot: template.id,
    make: (host, deviceSupport) => {
      const vm = template.restore(host, { known, deviceSupport, hearsOwner });
      vm.giveCommand({ ...block, holdsProgram });
      return vm;
    },
    atSnapshotPoint: async (vm, report) => {
      try {
        await program?.make(vm);
      } catch (error) {
        // The guest has been stopped meanwhile.
        if (error instanceof VmStateError) return;
        if (!(error instanceof SnapshotError)) throw error;
        report(`the program is not kept for the next time: ${error.message}`);
      }
    },
  });
}

/** Or the exit code, if a signal has ended the wait for it: what its devices made on the host has gone by then. */
async function templateOf(
  options: BootOptions,
  config: ResolvedConfig,
  known: { readonly quirks: Quirks | undefined },
): Promise<OpenSnapshot | number> {
  const { loadDeviceSupport } = await import("../virtio/device-support.js");
  const deviceSupport = await loadDeviceSupport(config);
  const openCpuTemplate = await cpuTemplates(config);
  const progress = await showBooting(config.memoryMib);
  let signal: number | undefined;
  // Before there is a guest, nothing has been made.
  let stop = (number: number): void => process.exit(EXIT_SIGNAL_BASE + number);
  const removeHandlers = onEndSignals((number) => {
    signal ??= number;
    stop(number);
  });
  const waits = (): void => {
    if (!options.quiet) say("there is no template of this guest yet: it boots, once");
  };
  const boots = (vm: { stop(): void }): void => {
    stop = () => {
      vm.stop();
    };
  };
  try {
    return await openTemplate(config, { known, deviceSupport, openCpuTemplate, waits, boots });
  } catch (error) {
    if (signal === undefined) throw error;
    return EXIT_SIGNAL_BASE + signal;
  } finally {
    progress?.done();
    removeHandlers();
  }
}

function restoreBlock({ command }: BootOptions, usesTerminal: boolean): RestoreBlock {
  const none = usesTerminal ? SHELL : SELF_DESCRIPTION;
  return {
    command: command.length > 0 ? argumentBytes(command) : none.map((word) => Buffer.from(word)),
    variables: usesTerminal ? [Buffer.from(`TERM=${process.env["TERM"] ?? DEFAULT_TERM}`)] : [],
    // Node's stream for it is made by looking at it, with all that streams need: 5 ms.
    terminal: usesTerminal ? { rows: process.stdout.rows, columns: process.stdout.columns } : undefined,
    ...freshIdentity(),
  };
}
