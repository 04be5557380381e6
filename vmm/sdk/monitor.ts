// The process of a VM that lives longer than the command that started it, or apart from the program that uses it.
import { closeSync, writeSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import type { TerminalSize } from "../machine/arguments.js";
import { MainProgram } from "./main-program.js";
import { failureOf, REPORT_FD, type MonitorOrder, type MonitorReport } from "./monitor-messages.js";
import type { LogStream, OutputLog } from "./output-log.js";
import { VmOwner } from "./vm-owner.js";
import { onEndSignals } from "../sys/end-signals.js";

const EXIT_TIMEOUT = 124;
const EXIT_OWN_FAILURE = 125;
const SIGNAL_BASE = 128;
const SIGKILL = 9;
/** Between the agent's last word and the guest's end, `ms`. */
const LOST_MS = 1000;

/** Reads its order from standard input; the result is the process's exit code. */
export async function runMonitor(order: MonitorOrder, lifeline: Promise<void>): Promise<number> {
  const abort = new AbortController();
  const removeHandlers = onEndSignals((number) => {
    abort.abort(new Error(`signal ${String(number)}`));
  });
  let isAttended = order.isBound || order.waitsForAttach;
  if (isAttended) {
    void lifeline.then(async () => {
      // It may have left the program's terminal a moment ago.
      if (order.waitsForAttach) await sleep(LOST_MS);
      if (isAttended) abort.abort(new Error("the program that started it has ended"));
    });
  }
  let owner: VmOwner;
  let release = (): void => undefined;
  try {
    release = await holdImage(order.spec);
    owner = await VmOwner.start(order.spec, {
      snapshot: order.snapshot,
      hasLog: order.keepsLog,
      signal: abort.signal,
      log: (notice) => {
        tell({ notice });
      },
      boots: () => {
        tell({ boots: true });
      },
    });
  } catch (error) {
    tell({ failed: failureOf(error) });
    release();
    removeHandlers();
    return EXIT_OWN_FAILURE;
  }
  let exitCode = EXIT_OWN_FAILURE;
  let problem: string | undefined;
  try {
    exitCode =
      order.spec.main === undefined
        ? await serve(owner, order, abort.signal)
        : await runMain(owner, order, abort.signal, () => {
            // From here on others may come back to it.
            isAttended = order.isBound;
          });
  } catch (error) {
    const failed = failureOf(error);
    exitCode = failed.exec?.exitCode ?? EXIT_OWN_FAILURE;
    problem = failed.message;
    tell({ failed });
  }
  await owner.end(exitCode, problem);
  release();
  removeHandlers();
  return exitCode;
}

/** Whoever has started this process lets go of the image once the VM is there. */
async function holdImage({ root, imageId }: MonitorOrder["spec"]): Promise<() => void> {
  if (root.kind !== "image" || imageId === undefined) return () => undefined;
  const { prepareImage } = await import("../image/index.js");
  const image = await prepareImage(`sha256:${imageId}`, { pull: "never" });
  return () => {
    image.release();
  };
}

/** A VM without a program of its own: until it is ended. */
async function serve(owner: VmOwner, { spec }: MonitorOrder, abort: AbortSignal): Promise<number> {
  await owner.open();
  tell({ ready: { id: spec.id, restored: owner.workload.isRestored } });
  const over = limit(spec.timeoutMs);
  try {
    const { ended, agent } = owner.workload;
    // Without its agent, nobody can use it any more.
    const lost = agent.closed.then(async (error) => {
      // The guest's end is the reason more often than not.
      await sleep(LOST_MS);
      throw error;
    });
    lost.catch(() => undefined);
    const outcome = await Promise.race([ended, aborted(abort), over.promise, lost]);
    if (outcome === "timeout") return EXIT_TIMEOUT;
    return outcome === "aborted" ? SIGNAL_BASE + SIGKILL : (outcome.exitStatus ?? 0);
  } finally {
    over.clear();
  }
}

async function runMain(owner: VmOwner, order: MonitorOrder, abort: AbortSignal, attached: () => void): Promise<number> {
  const { spec, keepsLog, waitsForAttach } = order;
  const { main } = spec;
  if (main === undefined) throw new Error("There is no program to run");
  const { log } = owner;
  let program: MainProgram | undefined;
  let size: TerminalSize | undefined;
  let endInput = (): void => {
    hasEarlyEnd = true;
  };
  let hasEarlyEnd = false as boolean;
  const early: number[] = [];
  let signalEarly: (number: number) => void = () => undefined;
  const signalled = new Promise<number>((resolve) => (signalEarly = resolve));
  const server = owner.listen(
    {
      input: (bytes) => program?.input(bytes) ?? 0,
      endInput: () => {
        endInput();
      },
      resize: (rows, columns) => {
        size = { rows, columns };
        if (main.hasTerminal) program?.resize(rows, columns);
      },
      signal: (number) => {
        if (program !== undefined) {
          program.signal(number);
          return;
        }
        early.push(number);
        signalEarly(number);
      },
    },
    { hasOtherReaders: keepsLog },
  );
  const over = limit(spec.timeoutMs);
  try {
    await owner.open();
    if (waitsForAttach) {
      tell({ ready: { id: spec.id, restored: owner.workload.isRestored } });
      const first = await Promise.race([server.firstSize, aborted(abort), signalled]);
      if (first === "aborted") return SIGNAL_BASE + SIGKILL;
      // There is no program yet that could take it in another way.
      if (typeof first === "number") return SIGNAL_BASE + first;
      attached();
    }
    const sinks = {
      output: (output: 1 | 2, bytes: Buffer, done: () => void): void => {
        keep(log, output === 1 ? "stdout" : "stderr", bytes);
        server.output(output, bytes, done);
      },
      inputRoom: () => {
        server.inputRoom();
      },
    };
    const running = new MainProgram(owner.workload.agent, main, sinks, { size });
    program = running;
    endInput = () => {
      running.endInput();
    };
    for (const number of early) running.signal(number);
    server.inputRoom();
    if (hasEarlyEnd) endInput();
    await Promise.race([running.started, aborted(abort)]);
    if (!waitsForAttach) tell({ ready: { id: spec.id, restored: owner.workload.isRestored } });
    abort.addEventListener("abort", () => {
      running.signal(SIGKILL);
    });
    const outcome = await Promise.race([running.exit, over.promise, aborted(abort)]);
    const exitCode =
      outcome === "timeout" ? EXIT_TIMEOUT : outcome === "aborted" ? SIGNAL_BASE + SIGKILL : outcome.exitCode;
    return exitCode;
  } catch (error) {
    server.failed(failureOf(error));
    throw error;
  } finally {
    over.clear();
    log?.close();
  }
}

function keep(log: OutputLog | undefined, stream: LogStream, bytes: Uint8Array): void {
  try {
    log?.write(stream, bytes);
  } catch {
    // A full disk: the program goes on, and what it writes now is not kept.
  }
}

function aborted(signal: AbortSignal): Promise<"aborted"> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve("aborted");
    signal.addEventListener(
      "abort",
      () => {
        resolve("aborted");
      },
      { once: true },
    );
  });
}

function limit(ms: number): { readonly promise: Promise<"timeout">; clear(): void } {
  let timer: NodeJS.Timeout | undefined;
  const promise = new Promise<"timeout">((resolve) => {
    if (ms > 0) timer = setTimeout(resolve, ms, "timeout");
  });
  return {
    promise,
    clear: () => {
      clearTimeout(timer);
    },
  };
}

let isHeard = true;

/** To the process that has started this one, as long as it listens. */
function tell(report: MonitorReport): void {
  if (!isHeard) return;
  try {
    writeSync(REPORT_FD, `${JSON.stringify(report)}\n`);
  } catch {
    isHeard = false;
  }
  if ("ready" in report || "failed" in report) {
    isHeard = false;
    closeSync(REPORT_FD);
  }
}
