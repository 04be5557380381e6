// Makes a snapshot of a VM: a folder with a state file and a memory file. The state file names its memory file, and
// takes its place in one step: a process that dies on the way leaves the snapshot that was there before, or none.
import { closeSync, fdatasync, writeFileSync } from "node:fs";
import { promisify } from "node:util";
import type { State } from "../../devices/state.js";
import { describeConfig } from "../config/describe.js";
import { SnapshotError } from "../errors.js";
import { VERSION } from "../host/version.js";
import { vcpuToData } from "../kvm/vcpu-data.js";
import { vmToData } from "../kvm/vm-state.js";
import type { Capture } from "../machine/capture.js";
import type { Vm } from "../machine/vm.js";
import { randomBytes } from "../sys/random.js";
import { checkFolderPath, checkSnapshotOptions } from "./arguments.js";
import { Base, changedPagesSince, watchFrom, type SinceBase } from "./difference.js";
import { fileNames, inWords, SnapshotFolder, type SnapshotTarget } from "./folder.js";
import { hashImages, type ImageHashes } from "./image-hash.js";
import { writeMemory } from "./memory-file.js";
import { piecesOf } from "./memory-pieces.js";
import { refuseKernelSockets } from "./refuse-kernel-sockets.js";
import { describeHost } from "./saved-host.js";
import { encodeState } from "./state-file.js";

const ID_BYTES = 16;
const synced = promisify(fdatasync);

export interface SnapshotOptions {
  /** Whether the VM runs afterwards; default: as before. */
  readonly resume?: boolean | undefined;
  /** Folder of another snapshot: only what has changed since is written, and it is needed for a restore. */
  readonly base?: string | undefined;
  /** Follow from here on which pages change: the next snapshot with this one as its base need not compare all. */
  readonly watch?: boolean | undefined;
  /** A text that is kept with it. */
  readonly note?: string | undefined;
}

export interface Snapshot {
  readonly id: string;
  /** `bytes` of both files that are no holes. */
  readonly bytes: number;
  /** How long the guest rested for it, `ms`. */
  readonly pausedMs: number;
}

/**
 * Writes a running or paused VM to a folder, in place of a snapshot that lies there. Rejects with SnapshotError,
 * VmStateError or ConfigError: then the VM is as it was before, and so is the folder. `given`: in place of the folder, which somebody else has.
 */
export async function createSnapshot(
  vm: Vm,
  folder: string,
  options: SnapshotOptions = {},
  given?: SnapshotTarget,
): Promise<Snapshot> {
  const { resume, base: baseFolder, watch, note } = checkSnapshotOptions(options);
  if (watch === true) refuseKernelSockets(vm.config);
  const wasPaused = vm.state === "paused";
  const base = baseFolder === undefined ? undefined : Base.open(baseFolder, checkFolderPath(folder));
  let isMade = false;
  let target: SnapshotTarget | undefined;
  try {
    target = given ?? SnapshotFolder.take(checkFolderPath(folder));
    const to = target;
    const hashes = hashImages(vm.images);
    const start = performance.now();
    try {
      const made = await vm.whilePaused(async (capture) => {
        const since = base?.since(capture, changedPagesSince(vm, base.id));
        const written = await writeSnapshot(capture, to, hashes, { since, note }, () => turnOf(vm));
        if (watch === true) watchFrom(vm, written.id);
        return written;
      });
      isMade = true;
      return { ...made, pausedMs: performance.now() - start };
    } finally {
      const goesOn = isMade ? (resume ?? !wasPaused) : !wasPaused;
      if (goesOn && vm.state === "paused") vm.resume();
    }
  } finally {
    base?.close();
    if (isMade) target?.close();
    else target?.giveUp();
  }
}

/** Others have their turn. */
export async function turnOf(vm: Vm): Promise<void> {
  await new Promise((resolve) => setImmediate(resolve));
  if (vm.state !== "paused") throw new SnapshotError("The guest has ended while it was saved");
}

export function newId(): string {
  return Buffer.from(randomBytes(ID_BYTES)).toString("hex");
}

/** The VM is paused, and stays so. */
async function writeSnapshot(
  capture: Capture,
  target: SnapshotTarget,
  hashes: ImageHashes,
  { since, note }: { readonly since: SinceBase | undefined; readonly note: string | undefined },
  turn: () => Promise<void>,
): Promise<Pick<Snapshot, "id" | "bytes">> {
  const id = target.id ?? newId();
  const { memory: memoryName, state: stateName } = fileNames(id);
  try {
    const pieces = since?.pieces ?? piecesOf(capture);
    const memory = await writeFile(target, memoryName, (fd) => writeMemory(fd, pieces, id, turn));
    const { dataBytes, sha256 } = memory;
    const base: State = since === undefined ? {} : { base: since.state(target.path) };
    const state = encodeState({
      ...stateOf(capture, id, hashes),
      memory: { file: memoryName, dataBytes, sha256, ...base },
      ...(note === undefined ? {} : { note }),
    });
    await writeFile(target, stateName, (fd) => {
      writeFileSync(fd, state);
    });
    await target.publish(stateName, memoryName);
    return { id, bytes: memory.dataBytes + state.length };
  } catch (error) {
    target.remove(memoryName);
    target.remove(stateName);
    throw inWords(`${target.path}: the snapshot cannot be written`, error);
  }
}

async function writeFile<Result>(
  target: SnapshotTarget,
  name: string,
  write: (fd: number) => Result | Promise<Result>,
): Promise<Result> {
  const fd = target.make(name);
  try {
    const result = await write(fd);
    await synced(fd);
    return result;
  } finally {
    closeSync(fd);
  }
}

/** All but its memory. */
export function stateOf(capture: Capture, id: string, { kernel: kernelHash, initrd }: ImageHashes): State {
  return {
    id,
    vmlet: VERSION,
    created: new Date().toISOString(),
    host: describeHost(capture.cpu, capture.quirks !== undefined, capture.native),
    config: describeConfig(capture.config) as unknown as State,
    images: { kernel: kernelHash, initrd },
    kernelFormat: capture.kernelFormat,
    vm: vmToData(capture.machine.vm),
    vcpus: capture.machine.vcpus.map(vcpuToData),
    legacy: capture.legacy,
    devices: capture.devices,
    channel: capture.channel,
  };
}
