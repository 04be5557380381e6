// A snapshot as two files wherever the caller wants them: state, and memory beside it or elsewhere. The state names no memory file; both
// carry the snapshot's id, so that two that do not belong together are found out. A difference is written into the memory
// file of an earlier snapshot, or into a new one that has its changed pages and holes: what copies its data over the earlier file
// makes a whole one.
import {
  closeSync,
  constants,
  fdatasync,
  fstatSync,
  ftruncateSync,
  openSync,
  renameSync,
  rmSync,
  writeSync,
} from "node:fs";
import { promisify } from "node:util";
import type { Capture } from "../machine/capture.js";
import type { Vm } from "../machine/vm.js";
import { PAGE_SIZE } from "../memory/layout.js";
import { hasPage } from "../memory/saved-memory.js";
import { newId, stateOf, turnOf } from "./create.js";
import { changedPagesSince, watchFrom } from "./difference.js";
import { attempt, inWords, readSnapshotFile } from "./folder.js";
import { hashImages } from "./image-hash.js";
import { candidatePages, lastPage, writeMemory, writeRun } from "./memory-file.js";
import { piecesOf } from "./memory-pieces.js";
import { decodeState, encodeState, MAX_STATE_BYTES, readingState } from "./state-file.js";

export interface PairOptions {
  readonly statePath: string;
  readonly memoryPath: string;
  /** Since the snapshot of this id, or since `followFrom`: only pages that have changed are written. */
  readonly since?: string | undefined;
  /** Follow from here on which pages change. */
  readonly watches: boolean;
  /** A text that is kept with it. */
  readonly note: string;
}

const PRIVATE_FILE = 0o600;
const synced = promisify(fdatasync);

/** Whether a file is the state of such a snapshot. Throws SnapshotError for one that is not whole, or of another version. */
export function isPairState(path: string): boolean {
  const state = decodeState(readSnapshotFile(path, MAX_STATE_BYTES), path);
  return readingState(path, () => state.at("memory").names(MEMORY_NAMES).join() === "dataBytes");
}

/** More than any state has there. */
const MEMORY_NAMES = 10;

/** Follows which pages change from here on; `since` of a later snapshot is the id. */
export function followFrom(vm: Vm, id: string): void {
  watchFrom(vm, id);
}

/** The id of the snapshot. Rejects with SnapshotError or VmStateError: then the VM is as before, and a state file that was there is. */
export async function createPair(vm: Vm, options: PairOptions): Promise<string> {
  const hashes = hashImages(vm.images);
  return vm.whilePaused(async (capture) => {
    const id = newId();
    const turn = (): Promise<void> => turnOf(vm);
    const { since, memoryPath, statePath, note, watches } = options;
    const dataBytes =
      since === undefined
        ? await replaceFile(
            memoryPath,
            id,
            async (fd) => (await writeMemory(fd, piecesOf(capture), id, turn)).dataBytes,
          )
        : await writeDifference(memoryPath, capture, id, changedPagesSince(vm, since), turn);
    const state = encodeState({ ...stateOf(capture, id, hashes), memory: { dataBytes }, note });
    await replaceFile(statePath, id, (fd) => {
      writeSync(fd, state);
    });
    if (watches) watchFrom(vm, id);
    return id;
  });
}

/** In one step: what fails leaves what was there. */
async function replaceFile<Result>(
  path: string,
  id: string,
  write: (fd: number) => Result | Promise<Result>,
): Promise<Result> {
  const { O_WRONLY, O_CREAT, O_EXCL } = constants;
  const unfinished = `${path}.${id}`;
  const fd = attempt(path, () => openSync(unfinished, O_WRONLY | O_CREAT | O_EXCL, PRIVATE_FILE));
  try {
    const result = await write(fd);
    await synced(fd);
    renameSync(unfinished, path);
    return result;
  } catch (error) {
    rmSync(unfinished, { force: true });
    throw inWords(path, error);
  } finally {
    closeSync(fd);
  }
}

/** `changed`: a bit a page; undefined if nobody has followed them, and then all pages count that may hold something. */
async function writeDifference(
  path: string,
  capture: Capture,
  id: string,
  changed: Uint32Array | undefined,
  turn: () => Promise<void>,
): Promise<number> {
  const { O_RDWR, O_CREAT, O_NONBLOCK } = constants;
  const fd = attempt(path, () => openSync(path, O_RDWR | O_CREAT | O_NONBLOCK, PRIVATE_FILE));
  try {
    const pieces = piecesOf(capture);
    const length = pieces.reduce((sum, piece) => sum + piece.length, 0);
    // Of another size, it is no earlier state of this memory.
    if (fstatSync(fd).size !== length + PAGE_SIZE) {
      ftruncateSync(fd, 0);
      ftruncateSync(fd, length + PAGE_SIZE);
    }
    let written = 0;
    let offset = 0;
    for (const piece of pieces) {
      // The channel's pages, behind RAM, are few: always all of them.
      const isRam = offset === 0;
      for (let from = 0; from < piece.length; from += STEP_BYTES) {
        const bytes = Math.min(STEP_BYTES, piece.length - from);
        const candidates =
          isRam && changed !== undefined ? bitsOf(changed, from, bytes) : candidatePages(piece, from, bytes);
        written += writePages(fd, piece.address + from, offset + from, candidates);
        await turn();
      }
      offset += piece.length;
    }
    writeSync(fd, lastPage(id), 0, null, length);
    await synced(fd);
    return written;
  } catch (error) {
    throw inWords(path, error);
  } finally {
    closeSync(fd);
  }
}

/** Written before others have their turn: `bytes`. */
const STEP_BYTES = 2 ** 24;

function bitsOf(bits: Uint32Array, from: number, bytes: number): Uint8Array {
  const first = from / PAGE_SIZE;
  return Uint8Array.from({ length: bytes / PAGE_SIZE }, (_, index) => (hasPage(bits, first + index) ? 1 : 0));
}

/** Pages of zeroes, too: a hole means that a page is as it was. */
function writePages(fd: number, address: number, at: number, isWanted: Uint8Array): number {
  let written = 0;
  for (let page = 0; page < isWanted.length; page++) {
    if (isWanted[page] === 0) continue;
    const first = page;
    while (page + 1 < isWanted.length && isWanted[page + 1] !== 0) page++;
    const bytes = (page + 1 - first) * PAGE_SIZE;
    writeRun(fd, address + first * PAGE_SIZE, bytes, at + first * PAGE_SIZE);
    written += bytes;
  }
  return written;
}
