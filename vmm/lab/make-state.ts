// Makes a lab's saved state: boots the machine, has a vmlet in it load and run its code, and saves it while that waits
// for work. One process makes it, others that want the same one wait for it.
import { spawnSync } from "node:child_process";
import {
  closeSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { GuestCommand } from "../agent/command.js";
import { AgentConnection } from "../agent/connection.js";
import { GuestFiles } from "../agent/files.js";
import { GuestControl } from "../agent/guest.js";
import { AgentError, LabError } from "../errors.js";
import { findProgram } from "../host/programs.js";
import { shellWord } from "../host/shell-word.js";
import { afterLimit } from "../host/time-limit.js";
import { lockByteExclusive } from "../sys/locks.js";
import { WAITING_CLI, rehearsalInputs, waitingInputs } from "./checkout.js";
import type { LabOptions, MachineSize, SavedState } from "./emulator.js";
import { ENVIRONMENT, NODE, WAIT_COMMAND } from "./environment.js";
import { INPUT_DISK_BYTES, type LabBase } from "./image.js";
import { MachineTransport } from "./machine-transport.js";
import { startForSaving, type MonitoredMachine } from "./qemu.js";
import {
  BUILDING,
  failureFile,
  findState,
  hashOf,
  likeness,
  recentFailure,
  removeOldStates,
  stateKey,
  stateSize,
  statesFolder,
  type StateRecord,
} from "./saved-state.js";
import { FIRST_PIPE, WAITING_WORD } from "./work.js";

/** From power-on to the agent, and from there to the vmlet that waits, on a busy machine, `ms`. */
const BOOT_LIMIT_MS = 60_000;
const REHEARSAL_LIMIT_MS = 60_000;
const LOCK_RETRY_MS = 200;
const LOOK_MS = 100;
const DAY_MS = 24 * 3600 * 1000;
const COMPLAINT_LINES = 4;

export interface Watch {
  readonly abort?: AbortSignal | undefined;
  readonly onProgress?: ((text: string) => void) | undefined;
  readonly onNotice?: ((line: string) => void) | undefined;
}

export type StateOrReason = SavedState | { readonly why: string };

/** The state for such a lab, which is made if there is none yet; or why there cannot be one. Rejects if it is aborted. */
export async function savedState(options: LabOptions, base: LabBase, watch: Watch): Promise<StateOrReason> {
  const folder = statesFolder();
  if ("why" in folder) return folder;
  const size = stateSize(options);
  const key = stateKey(size, base, options.packageRoot);
  const found = findState(folder.path, key, size);
  if (found !== undefined) return found;
  const failure = recentFailure(folder.path, key);
  if (failure !== undefined) return { why: failure };
  try {
    const lock = await takeLock(folder.path, key, watch);
    try {
      return (
        findState(folder.path, key, size) ??
        (await persistently(watch, () => make(options.packageRoot, base, size, folder.path, key, watch)))
      );
    } finally {
      closeSync(lock);
    }
  } catch (error) {
    watch.abort?.throwIfAborted();
    const why = (error as Error).message;
    noteFailure(failureFile(folder.path, key), why);
    return { why };
  }
}

function noteFailure(file: string, why: string): void {
  try {
    writeFileSync(file, `${why}\n`, { mode: 0o600 });
  } catch {
    // The next start tries it again.
  }
}

/** An open file with the lock of this key; who has it before us makes the very state that we want. */
async function takeLock(folder: string, key: string, { abort, onProgress }: Watch): Promise<number> {
  const fd = openSync(join(folder, "lock"), "a", 0o600);
  const byte = Number.parseInt(key.slice(0, 8), 16);
  try {
    while (!lockByteExclusive(fd, byte)) {
      onProgress?.("another process prepares it for both");
      abort?.throwIfAborted();
      await new Promise((resolve) => setTimeout(resolve, LOCK_RETRY_MS));
    }
    return fd;
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

/** A step that has not come to its end in a time that is ample. */
class HangError extends LabError {}

/** Two emulated processors can hang each other, now and then; then once more. */
async function persistently<Result>({ abort, onProgress }: Watch, task: () => Promise<Result>): Promise<Result> {
  try {
    return await task();
  } catch (error) {
    if (!(error instanceof HangError) || abort?.aborted === true) throw error;
    onProgress?.(`${error.message}: once more`);
    return await task();
  }
}

async function make(
  packageRoot: string,
  base: LabBase,
  size: MachineSize,
  folder: string,
  key: string,
  { abort, onProgress, onNotice }: Watch,
): Promise<SavedState> {
  onProgress?.("its host boots, once: later starts go on from there");
  const work = join(folder, `${BUILDING}${key}`);
  rmSync(work, { recursive: true, force: true });
  mkdirSync(work, { mode: 0o700 });
  try {
    const [ram, machineFile, input] = ["ram", "machine", "input"].map((name) => join(work, name)) as [
      string,
      string,
      string,
    ];
    for (const file of [ram, machineFile, input]) writeFileSync(file, "", { mode: 0o600 });
    truncateSync(input, INPUT_DISK_BYTES);
    const machine = startForSaving(size, base, input, ram, work);
    const maker = new Maker(machine, join(work, "console.log"), abort);
    let vmlet: WaitingStart;
    try {
      await maker.within(BOOT_LIMIT_MS, "the lab's boot", maker.agent.ready);
      onProgress?.("vmlet loads its code there, once");
      vmlet = await maker.within(REHEARSAL_LIMIT_MS, "vmlet's start in the lab", startVmlet(maker.agent, packageRoot));
      await save(machine, machineFile);
    } finally {
      maker.agent.close();
      machine.kill();
      await machine.ended;
    }
    makeSparse(ram);
    for (const name of ["input", "console.log"]) rmSync(join(work, name));
    const { complaint, stream } = vmlet;
    if (complaint !== "") {
      onNotice?.(`no vmlet waits in the lab's saved state, so that boots there are slower: ${complaint}`);
    }
    const record: StateRecord = {
      key,
      ...(complaint === "" ? { vmletStream: stream } : {}),
      ram: likeness(ram),
      machine: hashOf(machineFile),
    };
    writeFileSync(join(work, "record.json"), `${JSON.stringify(record)}\n`, { mode: 0o600 });
    const own = join(folder, key);
    rmSync(own, { recursive: true, force: true });
    renameSync(work, own);
    removeOldStates(folder);
    const state = findState(folder, key, size);
    if (state === undefined) throw new LabError("The saved state is not as it was written");
    return state;
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

interface WaitingStart {
  /** "" if one waits, else why not: the lab does without it. */
  readonly complaint: string;
  readonly stream: number;
}

/** Its streams are kept for the command that it will be, and it says nothing there before. */
const KEEP_STREAMS = `exec ${String(FIRST_PIPE)}<&0 ${String(FIRST_PIPE + 1)}>&1 ${String(FIRST_PIPE + 2)}>&2 </dev/null >/dev/null 2>&1; exec "$@"`;

async function startVmlet(agent: AgentConnection, packageRoot: string): Promise<WaitingStart> {
  const files = new GuestFiles(agent);
  const inputs = [...waitingInputs(packageRoot), ...rehearsalInputs()];
  for (const folder of new Set(inputs.map(({ to }) => dirname(to)))) await files.mkdir(folder, { parents: true });
  for (const { from, to } of inputs) await files.write(to, readFileSync(from));
  // Random numbers that a program has stretched itself are made anew once they are old: OpenSSL's after an hour.
  const timeNs = BigInt(Date.now() - DAY_MS) * 1_000_000n;
  await new GuestControl(agent, files).setIdentity({ timeNs });
  let hasEnded = false as boolean;
  const argv = ["sh", "-c", KEEP_STREAMS, "sh", ...NODE, WAITING_CLI, WAIT_COMMAND];
  const { stream } = new GuestCommand(
    agent,
    argv,
    { env: ENVIRONMENT, cleanEnv: true, cwd: "/" },
    {
      onOutput: () => undefined,
      onExit: () => (hasEnded = true),
      onFailed: () => (hasEnded = true),
    },
  );
  while (!hasEnded) {
    if (await files.exists(WAITING_WORD)) break;
    await sleep(LOOK_MS);
  }
  const complaint = (await files.exists(WAITING_WORD)) ? await files.readText(WAITING_WORD) : "it has ended";
  return { complaint, stream: stream.id };
}

async function save({ monitor }: MonitoredMachine, file: string): Promise<void> {
  await monitor.execute("stop");
  await monitor.migrate("save", `exec:cat >${shellWord(file)}`);
  // QEMU writes nothing to the RAM's file any more once it has ended; `kill` would do as well.
  await monitor.execute("quit");
}

/** Pages of zeroes take no room. */
function makeSparse(file: string): void {
  spawnSync(findProgram("fallocate") ?? "fallocate", ["--dig-holes", file], { stdio: "ignore" });
  // Its time is part of the record, and whole seconds survive any archive that a cache is kept in.
  const now = Math.floor(Date.now() / 1000);
  utimesSync(file, now, now);
}

/** Who waits for a machine that is to be saved. */
class Maker {
  readonly agent: AgentConnection;
  readonly #machine: MonitoredMachine;
  readonly #console: string;
  readonly #abort: AbortSignal | undefined;

  constructor(machine: MonitoredMachine, console: string, abort: AbortSignal | undefined) {
    this.#machine = machine;
    this.#console = console;
    this.#abort = abort;
    this.agent = new AgentConnection(new MachineTransport(machine), {
      helloLimitMs: 2 * BOOT_LIMIT_MS,
      silenceMs: REHEARSAL_LIMIT_MS,
    });
  }

  /** What `task` resolves with. Rejects if it takes too long, if QEMU ends, or if it is given up. */
  async within<Result>(usualMs: number, what: string, task: Promise<Result>): Promise<Result> {
    this.#abort?.throwIfAborted();
    let inTime = (): void => undefined;
    let onAbort = (): void => undefined;
    const ended = this.#machine.ended.then((): never => {
      throw new LabError(`QEMU has ended in ${what}: ${this.#lastWords()}`);
    });
    ended.catch(() => undefined);
    const given = new Promise<never>((_, reject) => {
      inTime = afterLimit(what, usualMs, (limitMs) => {
        reject(new HangError(`${what} takes longer than ${String(limitMs / 1000)} s`));
      });
      onAbort = () => {
        reject(this.#abort?.reason as Error);
      };
      this.#abort?.addEventListener("abort", onAbort);
    });
    try {
      // The agent goes with its machine, whose end says more.
      return await Promise.race([
        task.catch((error: unknown) => (error instanceof AgentError ? ended : Promise.reject(error as Error))),
        ended,
        given,
      ]);
    } finally {
      inTime();
      this.#abort?.removeEventListener("abort", onAbort);
    }
  }

  #lastWords(): string {
    let log = "";
    try {
      log = readFileSync(this.#console, "utf8");
    } catch {
      // It has ended before it could make the file.
    }
    const lines = `${log}${this.#machine.complaints()}`.trim().split(/\r?\n/);
    return lines.slice(-COMPLAINT_LINES).join("; ");
  }
}
