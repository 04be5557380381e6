// Makes a snapshot of a paused VM: a folder with a state file and a memory file. The state file names its memory
// file, and takes its place in one step: a process that dies on the way leaves the snapshot that was there before,
// or none.
import { randomBytes } from "node:crypto";
import { closeSync, fdatasyncSync, mkdirSync, openSync, readdirSync, renameSync, rmSync, writeSync } from "node:fs";
import { join } from "node:path";
import type { State } from "../../devices/state.js";
import { describeConfig } from "../config/describe.js";
import { hostFacts } from "../host/facts.js";
import { VERSION } from "../host/version.js";
import { vcpuToData } from "../kvm/vcpu-data.js";
import { vmToData } from "../kvm/vm-state.js";
import type { Capture } from "../machine/capture.js";
import { writeMemory, type MemoryPiece } from "./memory-file.js";
import { encodeState } from "./state-file.js";

export const STATE_FILE = "state.json";
export const MEMORY_FILE = /^memory-[0-9a-f]{32}$/;
const ID_BYTES = 16;
const PRIVATE_FOLDER = 0o700;
const PRIVATE_FILE = 0o600;

export interface Snapshot {
  readonly id: string;
  /** `bytes` of both files that are no holes. */
  readonly bytes: number;
}

/** Throws SnapshotError or an error of the file system; the VM is as before then, and so is what lay in the folder. */
export function createSnapshot(capture: Capture, folder: string): Snapshot {
  const id = randomBytes(ID_BYTES).toString("hex");
  mkdirSync(folder, { recursive: true, mode: PRIVATE_FOLDER });
  const memoryName = `memory-${id}`;
  const stateName = `${STATE_FILE}.${id}`;
  try {
    const memory = writeFile(join(folder, memoryName), (fd) => writeMemory(fd, piecesOf(capture), id));
    const state = encodeState(stateOf(capture, id, memoryName, memory));
    writeFile(join(folder, stateName), (fd) => writeSync(fd, state));
    renameSync(join(folder, stateName), join(folder, STATE_FILE));
    removeOthers(folder, memoryName);
    return { id, bytes: memory.dataBytes + state.length };
  } catch (error) {
    rmSync(join(folder, memoryName), { force: true });
    rmSync(join(folder, stateName), { force: true });
    throw error;
  }
}

function writeFile<Result>(path: string, write: (fd: number) => Result): Result {
  const fd = openSync(path, "wx", PRIVATE_FILE);
  try {
    const result = write(fd);
    fdatasyncSync(fd);
    return result;
  } finally {
    closeSync(fd);
  }
}

/** What a snapshot before this one, or one that did not come to its end, has left. */
function removeOthers(folder: string, memoryName: string): void {
  for (const name of readdirSync(folder)) {
    const isOurs = MEMORY_FILE.test(name) || name.startsWith(`${STATE_FILE}.`);
    if (isOurs && name !== memoryName) rmSync(join(folder, name), { force: true });
  }
}

function piecesOf({ memory, command, memoryFile }: Capture): MemoryPiece[] {
  const base = (offset: number) => (memoryFile === undefined ? undefined : { fd: memoryFile, offset });
  const pieces: MemoryPiece[] = [{ address: memory.hostAddress, length: memory.size, base: base(0) }];
  if (command !== undefined) {
    const { hva, size } = command.region;
    pieces.push({ address: hva, length: size, base: base(memory.size) });
  }
  return pieces;
}

function stateOf(
  capture: Capture,
  id: string,
  memoryName: string,
  memory: { readonly dataBytes: number; readonly sha256: string },
): State {
  const { cpu, kernel } = hostFacts();
  return {
    id,
    vmlet: VERSION,
    created: new Date().toISOString(),
    host: { cpu, kernel, software: capture.quirks !== undefined },
    config: describeConfig(capture.config) as unknown as State,
    kernelFormat: capture.kernelFormat,
    memory: { file: memoryName, ...memory },
    vm: vmToData(capture.machine.vm),
    vcpus: capture.machine.vcpus.map(vcpuToData),
    legacy: capture.legacy,
    devices: capture.devices,
    channel: capture.channel,
  };
}
