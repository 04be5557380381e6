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
import { join } from "node:path";
import { LabError } from "../errors.js";
import { findProgram } from "../host/programs.js";
import { shellWord } from "../host/shell-word.js";
import { afterLimit } from "../host/time-limit.js";
import { lockByteExclusive } from "../sys/locks.js";
import { WAITING_CLI, rehearsalInputs, waitingInputs } from "./checkout.js";
import type { LabOptions, MachineSize, SavedState } from "./emulator.js";
import { ENVIRONMENT, NODE, WAIT_COMMAND } from "./environment.js";
import { FrameReader, encodeFile, encodeFrame, encodeRequest, type Frame } from "./frames.js";
import { INPUT_DISK_BYTES, type LabBase } from "./image.js";
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

/** From power-on to the agent, and from there to the vmlet that waits, on a busy machine, `ms`. */
const BOOT_LIMIT_MS = 120_000;
const REHEARSAL_LIMIT_MS = 180_000;
const LOCK_RETRY_MS = 200;
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
        findState(folder.path, key, size) ?? (await make(options.packageRoot, base, size, folder.path, key, watch))
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
    const agent = new Agent(machine, join(work, "console.log"), abort);
    let complaint: string;
    try {
      await agent.expect("N", BOOT_LIMIT_MS, "the lab's boot");
      onProgress?.("vmlet loads its code there, once");
      complaint = await startVmlet(agent, packageRoot);
      await save(machine, machineFile);
    } finally {
      machine.kill();
      await machine.ended;
    }
    makeSparse(ram);
    for (const name of ["input", "console.log"]) rmSync(join(work, name));
    const hasVmlet = complaint === "";
    if (!hasVmlet) onNotice?.(`no vmlet waits in the lab's saved state, so that boots there are slower: ${complaint}`);
    const record: StateRecord = { key, hasVmlet, ram: likeness(ram), machine: hashOf(machineFile) };
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

/** "" if one waits, else why not: the lab does without it. */
async function startVmlet(agent: Agent, packageRoot: string): Promise<string> {
  for (const { from, to } of [...waitingInputs(packageRoot), ...rehearsalInputs()]) {
    for (const piece of encodeFile(to, readFileSync(from))) agent.send("D", piece);
  }
  const argv = [...NODE, WAITING_CLI, WAIT_COMMAND];
  agent.send("B", encodeRequest({ argv, env: ENVIRONMENT, cwd: "/", terminal: undefined }));
  const { payload } = await agent.expect("V", REHEARSAL_LIMIT_MS, "vmlet's start in the lab");
  return payload.toString("utf8");
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

/** The agent's frames, one after the other. */
class Agent {
  readonly #machine: MonitoredMachine;
  readonly #console: string;
  readonly #abort: AbortSignal | undefined;
  #take: (frame: Frame) => void = () => undefined;

  constructor(machine: MonitoredMachine, console: string, abort: AbortSignal | undefined) {
    this.#machine = machine;
    this.#console = console;
    this.#abort = abort;
    const reader = new FrameReader();
    machine.output
      .on("data", (chunk: Buffer) => {
        for (const frame of reader.push(chunk)) this.#take(frame);
      })
      .on("error", () => undefined);
  }

  send(type: string, payload: Uint8Array): void {
    if (this.#machine.input.writable) this.#machine.input.write(encodeFrame(type, payload));
  }

  async expect(type: string, usualMs: number, what: string): Promise<Frame> {
    this.#abort?.throwIfAborted();
    let inTime = (): void => undefined;
    let onAbort = (): void => undefined;
    try {
      return await new Promise<Frame>((resolve, reject) => {
        this.#take = (frame) => {
          if (frame.type === type) resolve(frame);
        };
        inTime = afterLimit(what, usualMs, (limitMs) => {
          reject(new LabError(`${what} takes longer than ${String(limitMs / 1000)} s`));
        });
        onAbort = () => {
          reject(this.#abort?.reason as Error);
        };
        this.#abort?.addEventListener("abort", onAbort);
        void this.#machine.ended.then(() => {
          reject(new LabError(`QEMU has ended in ${what}: ${this.#lastWords()}`));
        });
      });
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
