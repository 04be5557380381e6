// The bundled program with a guest of a few instructions: all of it, on whatever KVM there is, in a moment.
import { spawn, type ChildProcess, type SpawnOptions } from "node:child_process";
import { once } from "node:events";
import { resolve } from "node:path";
import { IN_JAIL, jailMode } from "./jail-lane.js";

export const PROGRAM = resolve(jailMode === undefined ? "dist/vmlet.js" : IN_JAIL);

export interface Ended {
  /** As a shell has it: 128 + N for an end by signal N itself. */
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface Running {
  readonly child: ChildProcess;
  readonly pid: number;
  /** Resolves once standard output holds this. */
  until(text: string | RegExp): Promise<void>;
  readonly ended: Promise<Ended>;
}

const SIGNAL_BASE = 128;

const started = new Set<ChildProcess>();
// A test that fails leaves no guest that runs for ever.
process.once("exit", () => {
  for (const child of started) child.kill("SIGKILL");
});

/** Starts a command; one that is still there after `limitMs` is killed. */
export function start(command: readonly string[], options: SpawnOptions = {}, limitMs = 30_000): Running {
  const [file = "", ...argv] = command;
  const child = spawn(file, argv, { stdio: ["ignore", "pipe", "pipe"], ...options });
  started.add(child);
  const timer = setTimeout(() => child.kill("SIGKILL"), limitMs);
  let stdout = "";
  let stderr = "";
  let look = (): void => undefined;
  child.stdout?.setEncoding("latin1").on("data", (text: string) => {
    stdout += text;
    look();
  });
  child.stderr?.setEncoding("latin1").on("data", (text: string) => (stderr += text));
  const ended = once(child, "close").then(async ([code, signal]): Promise<Ended> => {
    clearTimeout(timer);
    started.delete(child);
    look();
    const { constants } = await import("node:os");
    const number = signal === null ? 0 : constants.signals[signal as NodeJS.Signals];
    return { status: (code as number | null) ?? SIGNAL_BASE + number, stdout, stderr };
  });
  return {
    child,
    pid: child.pid ?? 0,
    until: (text) =>
      new Promise((done, fail) => {
        look = () => {
          if (typeof text === "string" ? stdout.includes(text) : text.test(stdout)) done();
          else if (child.exitCode !== null || child.signalCode !== null) fail(new Error(`ended: ${stdout}${stderr}`));
        };
        look();
      }),
    ended,
  };
}

/** `vmlet boot` with the kernel, no initramfs and 32 MiB. */
export function bootWords(kernel: string, ...options: readonly string[]): string[] {
  return [PROGRAM, "boot", "--accel", "kvm", "--no-initrd", "--memory", "32", "--kernel", kernel, ...options];
}

export function run(command: readonly string[], options: SpawnOptions = {}, limitMs?: number): Promise<Ended> {
  return start(command, options, limitMs).ended;
}
