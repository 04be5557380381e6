// Hooks: programs of the host that run at a moment of a container's life, with its state on their standard input.
// OCI runtime-spec, "POSIX-platform Hooks".
import { spawnSync } from "node:child_process";
import { HostError } from "../errors.js";
import type { HookKind, OciHook } from "./runtime-spec.js";
import { stateOf, type ContainerRecord, type ContainerStatus } from "./state.js";

const MAX_WORDS = 1024;

/** One after the other. Throws HostError for the first that fails. */
export function runHooks(kind: HookKind, record: ContainerRecord, status: ContainerStatus): void {
  const hooks = record.hooks[kind] ?? [];
  if (hooks.length === 0) return;
  const input = JSON.stringify(stateOf(record, status));
  for (const [index, hook] of hooks.entries()) runHook(`${kind} hook #${String(index)}`, hook, input);
}

function runHook(what: string, { path, args = [], env = [], timeout }: OciHook, input: string): void {
  const [argv0 = path, ...rest] = args;
  const result = spawnSync(path, rest, {
    argv0,
    input,
    env: environment(env),
    encoding: "utf8",
    ...(timeout === undefined ? {} : { timeout: timeout * 1000, killSignal: "SIGKILL" }),
  });
  if (result.status === 0) return;
  const { code } = (result.error ?? {}) as NodeJS.ErrnoException;
  const why =
    code === "ETIMEDOUT"
      ? `it has taken more than ${String(timeout)} s`
      : code !== undefined
        ? `${path}: ${code}`
        : result.status === null
          ? `ended by ${String(result.signal)}`
          : `exit status ${String(result.status)}`;
  const said = `stdout: ${result.stdout.slice(-MAX_WORDS)}, stderr: ${result.stderr.slice(-MAX_WORDS)}`;
  throw new HostError(`error running ${what}: ${why}${result.error === undefined ? `, ${said}` : ""}`);
}

function environment(variables: readonly string[]): Record<string, string> {
  const all: Record<string, string> = {};
  for (const variable of variables) {
    const at = variable.indexOf("=");
    if (at > 0) all[variable.slice(0, at)] = variable.slice(at + 1);
  }
  return all;
}
