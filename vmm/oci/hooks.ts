// Hooks: programs of the host that run at a moment of a container's life, with its state on their standard input.
// OCI runtime-spec, "POSIX-platform Hooks".
import { spawn, type ChildProcess } from "node:child_process";
import { closeSync, openSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Readable } from "node:stream";
import { HostError } from "../errors.js";
import type { Context } from "./context.js";
import { killProcess } from "./kill-process.js";
import { messageOf } from "./log.js";
import type { HookKind, OciHook, OciSpec } from "./runtime-spec.js";
import { stateOf, type Container, type ContainerRecord, type ContainerStatus } from "./state.js";

/** Of what a hook says, for an error. */
const MAX_CHARS = 1024;
/** What a hook has written before its end has been read by then, `ms`. */
const DRAIN_MS = 50;
const HOOK_FILE = /^hook-\d+\.json$/;

/** First argument of Docker's own hook, which every container of its has: it connects networks, and leaves files alone. */
const NETWORK_HOOK = "libnetwork-setkey";

/** Until its program begins, a hook may change the container's files. */
export function mayChangeFiles(hooks: OciSpec["hooks"] = {}): boolean {
  const { prestart = [], createRuntime = [], createContainer = [], startContainer = [] } = hooks;
  const all: readonly OciHook[] = [...prestart, ...createRuntime, ...createContainer, ...startContainer];
  return all.some(({ args = [] }) => args[0] !== NETWORK_HOOK);
}

export function hasHooks(hooks: ContainerRecord["hooks"], kinds: readonly HookKind[]): boolean {
  return kinds.some((kind) => (hooks[kind] ?? []).length > 0);
}

/** Files that are standard input of a hook that runs, or ran when who had started it was killed. */
export function hookFiles({ folder }: Container): string[] {
  return readdirSync(folder)
    .filter((name) => HOOK_FILE.test(name))
    .map((name) => join(folder, name));
}

/** One after the other. Rejects with HostError for the first that fails. */
export async function runHooks(
  kind: HookKind,
  container: Container,
  record: ContainerRecord,
  status: ContainerStatus,
): Promise<void> {
  const hooks = record.hooks[kind] ?? [];
  if (hooks.length === 0) return;
  const state = JSON.stringify(stateOf(record, status));
  const file = join(container.folder, `hook-${String(process.pid)}.json`);
  try {
    for (const [index, hook] of hooks.entries()) {
      await runHook(`${kind} hook #${String(index)}`, hook, openState(file, state));
    }
  } finally {
    rmSync(file, { force: true });
  }
}

/** Those of poststop: where they fail, the rest goes on. runtime.md */
export async function hooksOfTheEnd(log: Context["log"], container: Container, record: ContainerRecord): Promise<void> {
  try {
    await runHooks("poststop", container, record, "stopped");
  } catch (error) {
    log.warn(messageOf(error));
  }
}

/** A file, so that a hook is found by it, and so are its children, when nobody is left who has started it. */
function openState(file: string, state: string): number {
  try {
    writeFileSync(file, state, { mode: 0o600 });
    return openSync(file, "r");
  } catch (error) {
    const { code = String(error) } = error as NodeJS.ErrnoException;
    throw new HostError(`${file}: ${code}: a hook cannot be given the container's state`, { cause: error });
  }
}

async function runHook(what: string, { path, args = [], env = [], timeout }: OciHook, stateFd: number): Promise<void> {
  const [argv0 = path, ...rest] = args;
  let child: ChildProcess;
  try {
    // It leads a group of its own: all of that ends with its time.
    const stdio: ("pipe" | number)[] = [stateFd, "pipe", "pipe"];
    child = spawn(path, rest, { argv0, env: environment(env), stdio, detached: true });
  } finally {
    closeSync(stateFd);
  }
  const said = { stdout: lastOf(child.stdout), stderr: lastOf(child.stderr) };
  const why = await endOf(child, path, timeout);
  if (why === undefined) return;
  const words = `stdout: ${said.stdout()}, stderr: ${said.stderr()}`;
  throw new HostError(`error running ${what}: ${why}${child.pid === undefined ? "" : `, ${words}`}`);
}

/** Why it has failed, if it has. What it has started may go on, and keep its output open. */
function endOf(child: ChildProcess, path: string, timeout: number | undefined): Promise<string | undefined> {
  return new Promise((resolve) => {
    let isLate = false;
    const timer =
      timeout === undefined
        ? undefined
        : setTimeout(() => {
            isLate = true;
            if (child.pid !== undefined) killProcess(-child.pid);
          }, timeout * 1000);
    const done = (why: string | undefined): void => {
      clearTimeout(timer);
      const leave = (): void => {
        clearTimeout(drained);
        child.stdout?.destroy();
        child.stderr?.destroy();
        resolve(why);
      };
      const drained = setTimeout(leave, DRAIN_MS);
      child.once("close", leave);
    };
    child.once("error", (error: NodeJS.ErrnoException) => {
      done(`${path}: ${error.code ?? String(error)}`);
    });
    child.once("exit", (code, signal) => {
      if (isLate) done(`it has taken more than ${String(timeout)} s`);
      else if (code === 0) done(undefined);
      else done(code === null ? `ended by ${String(signal)}` : `exit status ${String(code)}`);
    });
  });
}

/** It may say as much as it likes. */
function lastOf(stream: Readable | null): () => string {
  let text = "";
  stream?.setEncoding("utf8");
  stream?.on("data", (chunk: string) => (text = (text + chunk).slice(-MAX_CHARS)));
  stream?.on("error", () => undefined);
  return () => text;
}

function environment(variables: readonly string[]): Record<string, string> {
  const all: Record<string, string> = {};
  for (const variable of variables) {
    const at = variable.indexOf("=");
    if (at > 0) all[variable.slice(0, at)] = variable.slice(at + 1);
  }
  return all;
}
