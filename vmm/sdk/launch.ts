// Starts the process of a VM, and waits until the VM is there.
import { spawn, type ChildProcess } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import type { Readable } from "node:stream";
import { signalNumber } from "../agent/signals.js";
import { HostError } from "../errors.js";
import { packageRoot } from "../host/guest-files.js";
import { stateFolder } from "./state-folder.js";
import {
  errorOf,
  LineReader,
  readReport,
  REPORT_FD,
  type MonitorOrder,
  type MonitorReport,
} from "./monitor-messages.js";

/** The hidden command of the command line. */
export const MONITOR_COMMAND = "monitor";
const SIGNAL_BASE = 128;
const MAX_REPORT = 1024 * 1024;
/** From the word that it is to end to its process's end, `ms`. */
const END_LIMIT_MS = 20_000;

export interface LaunchHooks {
  readonly onNotice?: ((line: string) => void) | undefined;
  /** There is no template yet: it takes as long as a boot. */
  readonly onBoot?: (() => void) | undefined;
  /** Ends the start. */
  readonly signal?: AbortSignal | undefined;
}

export interface LaunchedVm {
  readonly id: string;
  readonly restored: boolean;
  /** The VM's own process; with a bound VM, the end of its input ends it. */
  readonly process: ChildProcess;
  /** Its exit code, once it has ended. */
  readonly ended: Promise<number>;
}

/** Rejects with what has prevented the start. */
export async function launchVm(order: MonitorOrder, hooks: LaunchHooks = {}): Promise<LaunchedVm> {
  // What has come before may have taken milliseconds of its own, and making a process does.
  await new Promise((resolve) => setImmediate(resolve));
  hooks.signal?.throwIfAborted();
  const program = join(packageRoot(), "dist/vmlet.js");
  if (!existsSync(program)) {
    throw new HostError(`The program ${program} is not built`, { cure: "make build" });
  }
  // For the launcher: the rest is in the order.
  const jail = order.spec.jail === "off" ? ["--jail=off"] : [];
  const child = spawn(program, [MONITOR_COMMAND, ...jail], {
    stdio: ["pipe", "ignore", "pipe", "pipe"],
    // A session of its own: what is typed into this one's terminal does not reach it.
    detached: true,
    // Its working folder must not keep a file system busy that it does not use.
    cwd: "/",
    // Which may be named from this process's folder.
    env: { ...process.env, VMLET_STATE: stateFolder() },
  });
  const ended = new Promise<number>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code, signal) => {
      resolve(code ?? SIGNAL_BASE + signalNumber(signal ?? "SIGKILL"));
    });
  });
  ended.catch(() => undefined);
  const said = lastWords(child, (line) => hooks.onNotice?.(line));
  const stop = (): void => {
    child.stdin?.destroy();
    child.kill("SIGTERM");
  };
  hooks.signal?.addEventListener("abort", stop, { once: true });
  try {
    const ready = reports(child, hooks);
    child.stdin?.on("error", () => undefined);
    child.stdin?.write(`${JSON.stringify(order)}\n`);
    // As long as it is open, whoever has started the VM is there.
    if (!order.isBound && !order.waitsForAttach) child.stdin?.end();
    const { id, restored } = await Promise.race([ready, ended.then((code) => lost(code, said()))]);
    hooks.signal?.throwIfAborted();
    return { id, restored, process: child, ended };
  } catch (error) {
    // Whoever hears of it finds nothing left.
    await endMonitor({ process: child, ended });
    hooks.signal?.throwIfAborted();
    throw error;
  } finally {
    hooks.signal?.removeEventListener("abort", stop);
  }
}

/** Ends the process of a bound VM, and waits until nothing is left of it. */
export async function endMonitor({ process, ended }: Pick<LaunchedVm, "process" | "ended">): Promise<void> {
  process.stdin?.destroy();
  const timer = setTimeout(() => process.kill("SIGKILL"), END_LIMIT_MS).unref();
  await ended.catch(() => undefined);
  clearTimeout(timer);
}

/** What it has said beside its reports: nothing, unless it comes to a bad end, of which `notice` hears. */
function lastWords(child: ChildProcess, notice: (line: string) => void): () => string {
  let said = "";
  const lines = new LineReader((line) => {
    said = line.replace(/^vmlet: /, "");
    notice(said);
  }, MAX_REPORT);
  child.stderr?.setEncoding("utf8").on("data", (text: string) => {
    lines.push(text);
  });
  child.stderr?.on("error", () => undefined);
  return () => said;
}

function lost(code: number, said: string): never {
  const why = said === "" ? "" : `: ${said}`;
  throw new HostError(`The VM's process has ended with ${String(code)} before the VM was there${why}`);
}

function reports(child: ChildProcess, hooks: LaunchHooks): Promise<{ id: string; restored: boolean }> {
  return new Promise((resolve, reject) => {
    const lines = new LineReader((line) => {
      let report: MonitorReport;
      try {
        report = readReport(line);
      } catch (error) {
        reject(error instanceof Error ? error : new Error(String(error)));
        return;
      }
      if ("notice" in report) hooks.onNotice?.(report.notice);
      else if ("boots" in report) hooks.onBoot?.();
      else if ("ready" in report) resolve(report.ready);
      else reject(errorOf(report.failed));
    }, MAX_REPORT);
    const pipe = child.stdio[REPORT_FD] as Readable;
    pipe.setEncoding("utf8");
    pipe.on("data", (text: string) => {
      lines.push(text);
    });
    pipe.on("error", reject);
  });
}
