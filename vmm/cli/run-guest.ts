// A guest's run from the VM's making to the exit code, whether it boots or goes on from a snapshot: terminal or
// command channel, signals, metrics, control socket, report.
import { deviceCount } from "../config/devices.js";
import type { ResolvedConfig } from "../config/types.js";
import { EXIT_OUTPUT_LOST, EXIT_SIGNAL_BASE } from "../host/exit-codes.js";
import { wasIgnored } from "../host/inherited-signals.js";
import { say } from "../host/say.js";
import { OutputWriter } from "../host/standard-output.js";
import type { VmHost } from "../machine/host-callbacks.js";
import type { JailMode } from "../config/jail-modes.js";
import type { Vm } from "../machine/vm.js";
import type { VmExit } from "../machine/vm-exit.js";
import { onEndSignals, onPauseSignals, PAUSE_SIGNALS } from "../sys/end-signals.js";
import { isTerminal } from "../sys/files.js";
import { isInForeground } from "../sys/terminal.js";
import type { DeviceSupport } from "../virtio/device-support.js";
import { ConfigError } from "../errors.js";
import type { BootProgress } from "./boot-progress.js";
import { CommandInput } from "../host/command-input.js";
import { COMMAND_NOT_RUN, exitCodeOf, hasMissedCommand } from "./exit-code.js";
import { GuestControls, unlessEnded } from "../sdk/guest-controls.js";
import type { HashedKernel } from "./kernel-hash.js";
import type { SealedRun } from "./jail.js";
import { END_OF_INPUT, Terminal } from "./terminal.js";

const STDIN = 0;
const STDOUT = 1;
const STDERR = 2;
const SIGPIPE = 13;
const SIGSYS = 31;

export interface GuestRun {
  readonly config: ResolvedConfig;
  /** Paths of what is made beside the guest. */
  readonly outputs: {
    readonly report: string | undefined;
    readonly metrics: string | undefined;
    readonly control: string | undefined;
  };
  /** False: a command finds the end of its input at once. */
  readonly readsInput: boolean;
  /** What has come for the command is given to it once it has started, and not before. */
  readonly holdsInput?: boolean;
  /** Somebody sits at the guest's terminal, although it has a channel for a command. */
  readonly usesTerminal?: boolean;
  /** A guest that is off without having begun its command is an error. */
  readonly runsCommand: boolean;
  /** For the report. */
  readonly kernel: HashedKernel | undefined;
  /** This process goes on after it: the VM is closed. */
  readonly isRehearsal?: boolean;
  /** Id of the snapshot that the guest goes on from. */
  readonly snapshot?: string;
  /** What goes away when there is something else to see. */
  readonly progress: BootProgress | undefined;
  make(host: VmHost, deviceSupport: DeviceSupport | undefined): Vm;
  /** The guest waits where a snapshot may be taken. */
  readonly atSnapshotPoint?: (vm: Vm, report: (line: string) => void) => Promise<void>;
  /** The process is to be sealed before the guest runs. */
  readonly jail?: JailMode;
  /** Comes when all else is made: the guest runs once this has resolved. */
  readonly beforeStart?: () => Promise<void>;
}

/** The result is the process's exit code. */
export async function runGuest(run: GuestRun): Promise<number> {
  const { config, progress, atSnapshotPoint, jail = "off" } = run;
  const isJailed = jail !== "off";
  const support = deviceCount(config) === 0 && !config.pci ? undefined : await import("../virtio/device-support.js");
  const deviceSupport = await support?.loadDeviceSupport(config);
  let signal: number | undefined;
  let terminal: Terminal | CommandInput | undefined;
  const usesChannel = config.commandChannel && run.usesTerminal !== true;
  const isRaw = isTerminal(STDIN) && !usesChannel;
  let stop = (): void => undefined;
  // Before the devices make something on the host that a signal must not leave behind.
  const removeHandlers = onEndSignals(
    (number) => {
      signal ??= number;
      stop();
    },
    // A refused call in the jail is a SIGSYS, too.
    { except: isJailed ? [...PAUSE_SIGNALS, SIGSYS] : PAUSE_SIGNALS },
  );
  const controls = new GuestControls();
  const report = (line: string): void => {
    say(line, { returns: isRaw });
  };
  const removePauseHandlers = onPauseSignals({
    pause: () => {
      unlessEnded(controls.pause(), report);
    },
    resume: () => {
      unlessEnded(controls.resume(), report);
    },
  });
  const writerOf = (fd: number, name: string): OutputWriter =>
    new OutputWriter(fd, {
      vanished: () => {
        signal ??= SIGPIPE;
        if (wasIgnored(SIGPIPE)) say(`${name}: nobody reads it any more (EPIPE); the guest is stopped`);
        vm.stop();
      },
      failed: (why) => {
        say(`${name}: ${why}: what the guest writes is lost`, { returns: isRaw });
      },
    });
  const outputs = { 1: writerOf(STDOUT, "standard output"), 2: writerOf(STDERR, "standard error") };
  const host: VmHost = {
    takesViews: true,
    output: (bytes, done) => {
      progress?.done();
      outputs[1].write(bytes, done);
    },
    commandError: (bytes, done) => {
      progress?.done();
      outputs[2].write(bytes, done);
    },
    inputRoom: () => {
      if (terminal instanceof Terminal) terminal.resume();
    },
    commandRoom: () => {
      if (terminal instanceof CommandInput) terminal.resume();
    },
    commandStarted: () => {
      progress?.done();
      openInput();
    },
    log: report,
    ...(atSnapshotPoint === undefined ? {} : { snapshotPoint: () => void atSnapshotPoint(vm, report) }),
  };
  const vm = run.make(host, deviceSupport);
  let isOver = false;
  let hasToWarn = usesChannel;
  let movedTo: string | undefined;
  const openInput = (): void => {
    if (terminal !== undefined || isOver) return;
    if (usesChannel && vm.hasCommandChannel) {
      terminal = new CommandInput(vm);
      if (run.readsInput) terminal.open();
      else vm.endCommandInput();
      return;
    }
    terminal = new Terminal({
      input: (bytes) => {
        if (hasToWarn && bytes.some((byte) => byte !== END_OF_INPUT)) {
          hasToWarn = false;
          say(
            "this guest's init has no channel for a command's input: it passes a terminal, which keeps no exact bytes",
          );
        }
        return vm.input(bytes);
      },
      inputBreak: () => {
        vm.inputBreak();
      },
      leave: () => {
        vm.stop();
      },
      togglePause: () => {
        unlessEnded(
          controls.togglePause().then((state) => {
            say(state === "paused" ? "the guest is paused; Ctrl-A p goes on" : "the guest goes on", { returns: true });
          }),
          report,
        );
      },
    });
    terminal.open();
  };
  progress?.clear();
  if (isRaw && isInForeground(STDIN)) say("Ctrl-A x leaves", { returns: true });
  // Input for a command waits until the guest's init has said where it wants it; a guest that goes on has said it.
  if (run.holdsInput !== true && (!config.commandChannel || vm.hasCommandChannel)) setImmediate(openInput);
  stop = () => {
    vm.stop();
  };
  const removeResize = config.console === "virtio" && isTerminal(STDOUT) ? followSize(vm) : undefined;
  const metrics = run.outputs.metrics === undefined ? undefined : await openMetrics(run.outputs.metrics, vm);
  let control: { close(): void } | undefined;
  let sealed: SealedRun | undefined;
  try {
    const { report: reportPath, control: controlPath } = run.outputs;
    const jailCode = isJailed ? await import("./jail.js") : undefined;
    const inbox = controlPath === undefined ? undefined : await jailCode?.openInbox(controlPath);
    controls.wantsFiles = (handed) => (handed === undefined ? inbox?.path : undefined);
    control = controlPath === undefined ? undefined : await openControl(controlPath, controls);
    await run.beforeStart?.();
    if (isJailed) sealed = await jailCode?.closeJail(jail, config, reportPath, controlPath !== undefined);
    const ended = vm.start({ threads: "main-first" });
    controls.begin(
      vm,
      async (folder, { handed, ...options }) => {
        const { createSnapshot } = await import("../snapshot/create.js");
        if (handed === undefined) return createSnapshot(vm, folder, options);
        const { handedTarget } = await import("../sdk/file-inbox.js");
        return createSnapshot(vm, folder, options, handedTarget(inbox, folder, handed));
      },
      async (to) => {
        if (isJailed) throw new ConfigError(["A guest in the jail cannot move: its monitor makes no connection"]);
        const { parseMigrationAddress } = await import("../snapshot/migration/address.js");
        const { migrateVm } = await import("../snapshot/migration/send.js");
        const migration = await migrateVm(vm, parseMigrationAddress(to));
        movedTo = to;
        return migration;
      },
    );
    const exit = await Promise.race([ended, defect()]);
    const isMissed = run.runsCommand && hasMissedCommand(exit);
    const ownCode = isMissed ? COMMAND_NOT_RUN : exitCodeOf(exit.outcome, exit.exitStatus);
    const guestsCode = signal === undefined ? ownCode : EXIT_SIGNAL_BASE + signal;
    const exitCode = exitCodeWithLoss(guestsCode, outputs[1].lostBytes + outputs[2].lostBytes);
    terminal?.close();
    if (movedTo !== undefined) say(`the guest has moved to ${movedTo}`);
    else if (exit.outcome !== "poweroff" && signal === undefined) await explain(exit);
    if (isMissed && signal === undefined) say("the guest ended without running COMMAND: its /init is not vmlet's");
    if (run.outputs.report !== undefined) {
      const { makeReport, writeReport } = await import("./report.js");
      const kernel = { format: vm.kernelFormat, hash: run.kernel };
      const content = makeReport(config, kernel, exit, exitCode, run.snapshot);
      return await writeReport(run.outputs.report, content, sealed?.report);
    }
    return exitCode;
  } finally {
    isOver = true;
    progress?.done();
    terminal?.close();
    removeResize?.();
    control?.close();
    // A snapshot that was being made leaves nothing.
    await controls.settled();
    metrics?.end();
    vm.closeDevices();
    await metrics?.close();
    sealed?.end();
    // Until here, a signal would have left something.
    removeHandlers();
    removePauseHandlers();
    if (run.isRehearsal === true) await vm.close();
    // Else the rest of the VM is not closed: the process ends with it, without waiting for a thread that may
    // still be starting, and the kernel frees everything.
  }
}

/** Rejects with the error that a callback has thrown, so that it is handled like any error: with nothing left behind. */
function defect(): Promise<never> {
  return new Promise((_, reject) => process.once("uncaughtException", reject));
}

/** Lost output is a failure, unless the guest's own status says more. */
function exitCodeWithLoss(guestsCode: number, lostBytes: number): number {
  if (lostBytes === 0) return guestsCode;
  say(`output: ${String(lostBytes)} bytes are lost; the guest itself has ended with ${String(guestsCode)}`);
  return guestsCode === 0 ? EXIT_OUTPUT_LOST : guestsCode;
}

/** Hands the size of this process's terminal to the guest's, now and whenever it changes. */
function followSize(vm: Vm): () => void {
  const { stdout } = process;
  const onResize = (): void => {
    vm.resize({ columns: stdout.columns, rows: stdout.rows });
  };
  onResize();
  stdout.on("resize", onResize);
  return () => stdout.off("resize", onResize);
}

async function openMetrics(path: string, vm: Vm) {
  const { MetricsFile } = await import("./metrics.js");
  return new MetricsFile(path, () => vm.statistics(), isTerminal(STDIN));
}

async function openControl(path: string, controls: GuestControls) {
  const { ControlServer } = await import("../sdk/control.js");
  return ControlServer.listen(path, controls);
}

async function explain(exit: VmExit): Promise<void> {
  const { describeOutcome } = await import("./outcome-text.js");
  say(describeOutcome(exit));
}
