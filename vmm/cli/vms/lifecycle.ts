// `vmlet stop`, `kill`, `rm` and `wait`: one or more VMs, one after the other.
import { signalNumber } from "../../agent/signals.js";
import { ConfigError, VmmError } from "../../errors.js";
import { print, say } from "../../host/say.js";
import { StateFolder } from "../../sdk/state-folder.js";
import { signalVm, stopVm, waitForVm } from "../../sdk/stop-vm.js";
import type { VmRecord } from "../../sdk/vm-record.js";
import { exitCodeOfError } from "../exit-code.js";
import { parseOptions } from "../parse-options.js";
import { parseGrace } from "./run-arguments.js";
import { UsageError } from "../usage-error.js";

export const HELP = { help: { type: "boolean", short: "h" } } as const;
export const STOP_FLAGS = { ...HELP, time: { type: "string", short: "t" }, timeout: { type: "string" } } as const;
export const KILL_FLAGS = { ...HELP, signal: { type: "string", short: "s" } } as const;
export const RM_FLAGS = { ...HELP, force: { type: "boolean", short: "f" } } as const;
const USUAL_GRACE_MS = 10_000;

export async function stop(argv: readonly string[]): Promise<number> {
  const { values, positionals } = parseOptions([...argv], STOP_FLAGS, "vmlet stop", { allowPositionals: true });
  if (values.help === true) return help("STOP_HELP");
  const given = values.time ?? values.timeout;
  const graceMs = given === undefined ? undefined : parseGrace("vmlet stop: --time", given);
  return forEach("stop", positionals, async (state, record) => {
    if (record.status !== "exited") await stopVm(state, record, graceMs ?? record.stopTimeoutMs ?? USUAL_GRACE_MS);
    return undefined;
  });
}

export async function kill(argv: readonly string[]): Promise<number> {
  const { values, positionals } = parseOptions([...argv], KILL_FLAGS, "vmlet kill", { allowPositionals: true });
  if (values.help === true) return help("KILL_HELP");
  const signal = signalNumber(values.signal ?? "KILL");
  return forEach("kill", positionals, async (state, record) => {
    await signalVm(state, record, signal);
    return undefined;
  });
}

export async function rm(argv: readonly string[]): Promise<number> {
  const { values, positionals } = parseOptions([...argv], RM_FLAGS, "vmlet rm", { allowPositionals: true });
  if (values.help === true) return help("RM_HELP");
  return forEach("rm", positionals, async (state, record) => {
    if (record.status !== "exited") {
      if (values.force !== true) {
        throw new ConfigError([`VM ${record.name} runs: vmlet stop ${record.name} ends it, vmlet rm --force both`]);
      }
      await stopVm(state, record, 0);
    }
    state.remove(record);
    return undefined;
  });
}

export async function wait(argv: readonly string[]): Promise<number> {
  const { values, positionals } = parseOptions([...argv], HELP, "vmlet wait", { allowPositionals: true });
  if (values.help === true) return help("WAIT_HELP");
  return forEach("wait", positionals, async (state, record) => String((await waitForVm(state, record)) ?? 0));
}

async function help(name: "STOP_HELP" | "KILL_HELP" | "RM_HELP" | "WAIT_HELP"): Promise<number> {
  const texts = await import("./help.js");
  print(texts[name]);
  return 0;
}

/** Prints what was given, or what `task` makes of it, a line a VM; the first failure's exit code. */
async function forEach(
  name: string,
  words: readonly string[],
  task: (state: StateFolder, record: VmRecord) => Promise<string | undefined>,
): Promise<number> {
  if (words.length === 0) throw new UsageError(`vmlet ${name}: no VM is given`);
  const state = new StateFolder();
  let exitCode = 0;
  for (const word of words) {
    try {
      print(`${(await task(state, state.find(word))) ?? word}\n`);
    } catch (error) {
      if (!(error instanceof VmmError)) throw error;
      say(error.message);
      exitCode ||= exitCodeOfError(error);
    }
  }
  return exitCode;
}
