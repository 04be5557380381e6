// Where the lab's saved states lie, and which of them may be used: one folder each in the cache, under the hash of
// all that the machine in it was made of. make-state.ts makes them, qemu.ts starts from them.
//
//   lab/states/lock            held by who makes one, a byte a key
//             /KEY/ram         the machine's RAM, sparse; a lab maps it privately, so that all share what none has written
//             /KEY/machine     everything else, QEMU's migration stream
//             /KEY/record.json what both are like; its time is that of the last use
//             /KEY.failed      why it could not be made; it is tried again after a day
import { createHash } from "node:crypto";
import { lstatSync, mkdirSync, readFileSync, readdirSync, rmSync, statSync, utimesSync } from "node:fs";
import { join } from "node:path";
import { cacheFolder } from "../host/cache-folder.js";
import { findProgram } from "../host/programs.js";
import { rehearsalInputs, waitingInputs } from "./checkout.js";
import type { MachineSize, SavedState } from "./emulator.js";
import { hostClock } from "./host-clock.js";
import type { LabBase } from "./image.js";
import { machineArguments } from "./qemu.js";

/** Raise it when what is done before a save changes. */
const RECIPE = 2;
/** RAM of the smallest machine, `MiB`; others are its doubles, so that few states serve all guests. */
const SMALLEST_MIB = 1536;
/** States that are kept, some 200 MB each. */
const MAX_STATES = 4;
const RETRY_MS = 24 * 3600 * 1000;
/** What a maker that was killed has left is removed after so long. */
const ABANDONED_MS = 3600 * 1000;
/** Nobody but this user may write there: what lies in it becomes a running machine. */
const FOLDER_MODE = 0o700;
const WRITABLE_BY_OTHERS = 0o022;

export const BUILDING = "building-";
const FAILED = ".failed";

export interface StateRecord {
  readonly key: string;
  /** Stream of the agent's on which a vmlet waits. */
  readonly vmletStream?: number;
  /** Size and time of `ram`, which is too large to be read at each start. */
  readonly ram: string;
  /** SHA-256 of `machine`. */
  readonly machine: string;
}

/** The size of the machine that serves one of `size`. */
export function stateSize({ memoryMib, cpus }: MachineSize): MachineSize {
  let mib = SMALLEST_MIB;
  while (mib < memoryMib) mib *= 2;
  return { memoryMib: mib, cpus };
}

/** Changes with everything that the machine is made of, and with the processor, whose clock it has measured. */
export function stateKey(size: MachineSize, base: LabBase, packageRoot: string): string {
  const hash = createHash("sha256");
  const qemu = findProgram("qemu-system-x86_64") ?? "";
  const { size: bytes, mtimeNs } = statSync(qemu, { bigint: true });
  const { model, khz } = hostClock();
  // To a hundredth: the host's kernel measures the rate anew at each boot.
  const rate = Number(khz.toPrecision(2));
  const machine = machineArguments(size, base, "input", "folder", rate);
  hash.update(JSON.stringify([RECIPE, qemu, String(bytes), String(mtimeNs), machine, model]));
  for (const { from, to } of waitingInputs(packageRoot)) {
    // Made from the program, and not twice the same.
    if (!to.endsWith(".cache")) hash.update(to).update(readFileSync(from));
  }
  for (const { to } of rehearsalInputs()) hash.update(to);
  return hash.digest("hex").slice(0, 16);
}

/** The folder of all states, made if need be. A string that is no path says why there is none. */
export function statesFolder(): { readonly path: string } | { readonly why: string } {
  const cache = cacheFolder();
  if (cache === undefined) return { why: "there is no folder for it; set VMLET_CACHE" };
  const path = join(cache, "lab/states");
  try {
    mkdirSync(path, { recursive: true, mode: FOLDER_MODE });
    if (!isOwn(path)) return { why: `${path} is not this user's alone` };
  } catch (error) {
    return { why: (error as Error).message };
  }
  return { path };
}

function isOwn(path: string): boolean {
  const stat = lstatSync(path);
  return stat.uid === process.geteuid?.() && (stat.mode & WRITABLE_BY_OTHERS) === 0 && !stat.isSymbolicLink();
}

/** The state, if it is there as it was made. */
export function findState(folder: string, key: string, size: MachineSize): SavedState | undefined {
  const own = join(folder, key);
  const record = join(own, "record.json");
  const state = { ram: join(own, "ram"), machine: join(own, "machine"), size };
  try {
    if (![own, record, state.ram, state.machine].every(isOwn)) return undefined;
    const found = JSON.parse(readFileSync(record, "utf8")) as Partial<StateRecord>;
    if (found.key !== key || found.ram !== likeness(state.ram) || found.machine !== hashOf(state.machine))
      return undefined;
    const now = new Date();
    utimesSync(record, now, now);
    return { ...state, vmletStream: found.vmletStream };
  } catch {
    // Whatever is wrong with it: it is made anew.
    return undefined;
  }
}

/** What tells a file that was changed, without reading it. */
export function likeness(path: string): string {
  const { size, mtimeNs } = statSync(path, { bigint: true });
  return `${String(size)} bytes, written at ${String(mtimeNs)}`;
}

export function hashOf(path: string): string {
  return createHash("sha256").update(readFileSync(path)).digest("hex");
}

/** A state with which no machine would go on. */
export function discardState(state: SavedState): void {
  rmSync(join(state.ram, ".."), { recursive: true, force: true });
}

export function failureFile(folder: string, key: string): string {
  return join(folder, `${key}${FAILED}`);
}

/** Why the state could not be made some time ago, so that it is not tried at each start. */
export function recentFailure(folder: string, key: string): string | undefined {
  const file = failureFile(folder, key);
  try {
    if (Date.now() - statSync(file).mtimeMs < RETRY_MS) return readFileSync(file, "utf8").trim();
  } catch {
    // There was none.
  }
  return undefined;
}

/** Removes the states that have not been used for longest, and what nobody will finish. */
export function removeOldStates(folder: string): void {
  const age = (path: string): number => Date.now() - (statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0);
  const names = readdirSync(folder);
  const states = names.filter((name) => /^[0-9a-f]+$/.test(name));
  const byUse = states.sort((a, b) => age(join(folder, a, "record.json")) - age(join(folder, b, "record.json")));
  const old = names.filter(
    (name) =>
      (name.startsWith(BUILDING) && age(join(folder, name)) > ABANDONED_MS) ||
      (name.endsWith(FAILED) && age(join(folder, name)) > RETRY_MS),
  );
  for (const name of [...byUse.slice(MAX_STATES), ...old]) {
    rmSync(join(folder, name), { recursive: true, force: true });
  }
}
