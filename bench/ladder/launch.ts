// Starts instances through programs/launch.c and reads what it says, line by line.
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { allowanceMs } from "./allowance.js";
import type { Equipment, OpenRung, Rung } from "./rung.js";
import type { Workspace } from "./workspace.js";

export const MARKER = "vmlet-ladder-first";
/** Beyond the launcher's own limit; it has to kill and report. */
const GRACE_MS = 5000;
/** Longest part of an instance's output in an error, in characters. */
const QUOTED = 200;

export interface Ended {
  readonly instance: number;
  /** Real name. */
  readonly name: string;
  /** Start to the program's first output, `ms`. */
  readonly firstMs: number;
  /** Start to exit, `ms`. */
  readonly lifeMs: number;
  /** First start of all to this one's exit, `ms`. */
  readonly endMs: number;
  readonly output: string;
}

type Event =
  | { readonly event: "start"; readonly instance: number; readonly pid: number }
  | { readonly event: "first" | "again"; readonly instance: number; readonly ms: number }
  | {
      readonly event: "end";
      readonly instance: number;
      readonly ms: number;
      readonly end_ms: number;
      readonly status?: number;
      readonly timeout?: boolean;
      readonly output: string;
      readonly errors: string;
    };

export interface Subject {
  readonly rung: Rung;
  readonly open: OpenRung;
}

/** What is started. */
export interface Order {
  readonly program: readonly string[];
  readonly count?: number;
  readonly equipment?: Equipment;
  /** Not in the group with the limits: many instances together would reach the limit of one. */
  readonly isUnlimited?: boolean;
}

let serial = 0;

/** Names of `count` instances: the pattern for the launcher, and the real ones. */
function names(workspace: Workspace, count: number): { pattern: string; real: string[] } {
  const stem = `${workspace.run}-${String(serial++)}`;
  return { pattern: `${stem}-@I@`, real: Array.from({ length: count }, (_, i) => `${stem}-${String(i)}`) };
}

function launcherArguments(workspace: Workspace, { rung, open }: Subject, order: Order, timeoutMs: number): string[] {
  const groups =
    rung.limits === "group" && order.isUnlimited !== true ? workspace.limits.flatMap((folder) => ["-c", folder]) : [];
  const hidden = open.hides === undefined ? [] : ["-u", open.hides];
  return ["-n", String(order.count ?? 1), "-t", String(timeoutMs), ...groups, ...hidden, "-m", MARKER, "--"];
}

/** Started instances; `onEvent` sees the launcher's lines, `done` resolves with its end. */
function spawnLauncher(workspace: Workspace, open: OpenRung, argv: readonly string[], onEvent: (event: Event) => void) {
  workspace.signal.throwIfAborted();
  // In the root tree, whose paths the program takes from its working directory: "/" on all other rungs.
  const env = { ...process.env, ...open.environment };
  const child = spawn(workspace.launcher, argv, { cwd: workspace.root, env, stdio: ["pipe", "pipe", "pipe"] });
  const stop = (): void => void child.kill("SIGTERM");
  workspace.signal.addEventListener("abort", stop, { once: true });
  let errors = "";
  child.stderr.setEncoding("latin1").on("data", (text: string) => (errors += text));
  createInterface({ input: child.stdout }).on("line", (line) => {
    onEvent(JSON.parse(line) as Event);
  });
  const done = new Promise<void>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (status) => {
      workspace.signal.removeEventListener("abort", stop);
      if (workspace.signal.aborted) reject(new Error("interrupted"));
      else if (status === 0) resolve();
      else reject(new Error(errors.trim() || `the launcher ended with status ${String(status)}`));
    });
  });
  return { child, done };
}

function why(end: Event & { event: "end" }, timeoutMs: number): string {
  const words = [end.errors, end.output].map((text) => text.trim()).find((text) => text !== "");
  const said = words === undefined ? "" : `: ${words.split("\n").at(-1)?.slice(0, QUOTED) ?? ""}`;
  if (end.timeout === true) return `hangs: not done after ${String(timeoutMs / 1000)} s${said}`;
  return end.status === 0 ? `ended without its first line${said}` : `exit status ${String(end.status)}${said}`;
}

/** Runs a program in one or several instances at once; `onEnded` sees each before it is removed. Throws if one fails, hangs or prints something else. */
export async function launch(
  workspace: Workspace,
  subject: Subject,
  order: Order,
  onEnded: (one: Ended) => void = () => undefined,
): Promise<readonly Ended[]> {
  const { rung, open } = subject;
  const { program, count = 1, equipment } = order;
  const { pattern, real } = names(workspace, count);
  const timeoutMs = allowanceMs(rung) * count;
  const firsts = new Map<number, number>();
  const ends: (Event & { event: "end" })[] = [];
  try {
    const argv = [
      ...launcherArguments(workspace, subject, order, timeoutMs),
      ...open.command({ name: pattern, program, ...equipment }),
    ];
    const { child, done } = spawnLauncher(workspace, open, argv, (event) => {
      if (event.event === "first") firsts.set(event.instance, event.ms);
      if (event.event === "end") ends.push(event);
    });
    const guard = setTimeout(() => child.kill("SIGKILL"), timeoutMs + GRACE_MS);
    await done.finally(() => {
      clearTimeout(guard);
    });
    return ends.map((end): Ended => {
      const firstMs = firsts.get(end.instance);
      if (end.status !== 0 || firstMs === undefined) throw new Error(why(end, timeoutMs));
      const name = real[end.instance] ?? "";
      const one = { instance: end.instance, name, firstMs, lifeMs: end.ms, endMs: end.end_ms, output: end.output };
      // Before its files, such as a report, are removed.
      onEnded(one);
      return one;
    });
  } finally {
    open.remove?.(real);
  }
}

export interface Held {
  /** Process of the launcher: the instances descend from it. */
  readonly launcher: number;
  /** Whether all have printed the marker once more. */
  isAgain(): boolean;
  /** Waits for that; throws if one ends before. */
  again(): Promise<void>;
  release(): Promise<void>;
}

/** A promise with its ends. */
interface Latch {
  readonly promise: Promise<void>;
  open(): void;
}

function latch(): Latch {
  let open: () => void = () => undefined;
  const promise = new Promise<void>((resolve) => (open = resolve));
  return { promise, open };
}

/** Starts instances that idle and keeps them until `release`. Throws if one does not come up. */
export async function hold(workspace: Workspace, subject: Subject, order: Order): Promise<Held> {
  const { rung, open } = subject;
  const { program, count = 1, equipment } = order;
  const { pattern, real } = names(workspace, count);
  const timeoutMs = allowanceMs(rung) * count;
  let up = 0;
  let again = 0;
  let failed: string | undefined;
  const isUp = latch();
  const isAgain = latch();
  const settle = (): void => {
    isUp.open();
    isAgain.open();
  };
  // Twice the time: half to come up, half for the measurement.
  const argv = [
    ...launcherArguments(workspace, subject, order, 2 * timeoutMs),
    ...open.command({ name: pattern, program, ...equipment }),
  ];
  const { child, done } = spawnLauncher(workspace, open, argv, (event) => {
    if (event.event === "first" && ++up === count) isUp.open();
    if (event.event === "again" && ++again === count) isAgain.open();
    if (event.event === "end") {
      failed ??= why(event, timeoutMs);
      settle();
    }
  });
  const ended = done
    .catch((error: unknown) => {
      failed ??= error instanceof Error ? error.message : String(error);
    })
    .finally(settle);
  const release = async (): Promise<void> => {
    open.remove?.(real);
    child.stdin.end();
    await ended;
    open.remove?.(real);
  };
  const guard = setTimeout(() => {
    failed ??= `hangs: not up after ${String(timeoutMs / 1000)} s`;
    settle();
  }, timeoutMs);
  await isUp.promise;
  clearTimeout(guard);
  if (failed !== undefined || child.pid === undefined) {
    await release();
    throw new Error(failed ?? "the launcher did not start");
  }
  return {
    launcher: child.pid,
    release,
    isAgain: () => again === count,
    again: async () => {
      await isAgain.promise;
      if (again < count) throw new Error(failed ?? "ended before its second line");
    },
  };
}
