// The memory of a VM as a sparse file: RAM from offset 0 on, without the hole between its regions, then the
// pages of the command's channel, then one page that says whose memory it is. Pages of zeroes are holes.
import type { Hash } from "node:crypto";
import { fstatSync, ftruncateSync, readSync, writeSync } from "node:fs";
import { SnapshotError } from "../errors.js";
import { PAGE_SIZE } from "../memory/layout.js";
import { IoVectors, nextData, pwritevRaw } from "../sys/files.js";
import { systemCallError } from "../sys/errno.js";
import { viewMemory } from "../sys/memory.js";
import { newSha256 } from "../sys/node-crypto.js";
import { ownPages } from "../sys/pagemap.js";

/** A piece of the monitor's memory that goes into the file. */
export interface MemoryPiece {
  readonly address: number;
  /** `bytes`, whole pages. */
  readonly length: number;
  /** The files that it was privately mapped from: pages that it does not own are as in one of them, or zero. */
  readonly bases: readonly { readonly fd: number; readonly offset: number }[];
  /** Other processes have it, too: all that it has is in the file of `bases`. */
  readonly isShared?: boolean;
  /** Only what has changed since is written. */
  readonly since?: Since | undefined;
}

/** What a piece was earlier. */
export interface Since {
  /** Where that is mapped. */
  readonly address: number;
  /** Nonzero for each page that may have changed. */
  candidates(from: number, length: number): Uint8Array;
  /** Told of each page that has, by its place in the piece. */
  changed(page: number): void;
}

export interface WrittenMemory {
  /** `bytes` that are no holes. */
  readonly dataBytes: number;
  /** SHA-256 over the pages that are not zero, each run of them after its place and length. */
  readonly sha256: string;
}

const MAGIC = "vmlet guest memory 1\n";
/** Longest piece that is viewed, and written before others have their turn: `bytes`. */
const VIEW_BYTES = 2 ** 24;
/** A run of pages ends where the file's offset is a multiple of this, so that the checksum does not depend on how it was written. */
const RUN_BYTES = 2 ** 20;
const PAGES_A_RUN = RUN_BYTES / PAGE_SIZE;
const WORDS_A_PAGE = PAGE_SIZE / 4;

/**
 * Writes all pieces one behind the other, and the last page; `fd` is a new, empty file. `turn` lets others have theirs
 * now and then. Rejects with SystemCallError, an error of the file system, or what `turn` rejects with.
 */
export async function writeMemory(
  fd: number,
  pieces: readonly MemoryPiece[],
  id: string,
  turn: () => Promise<void>,
): Promise<WrittenMemory> {
  const hash = newSha256();
  let offset = 0;
  let dataBytes = 0;
  for (const piece of pieces) {
    for (let done = 0; done < piece.length; done += VIEW_BYTES) {
      const length = Math.min(VIEW_BYTES, piece.length - done);
      dataBytes += writePart(fd, piece, done, length, offset + done, hash);
      await turn();
    }
    offset += piece.length;
  }
  ftruncateSync(fd, offset + PAGE_SIZE);
  writeAll(fd, lastPage(id), offset);
  return { dataBytes, sha256: hash.digest("hex") };
}

/** What stands behind the memory: whose it is. */
export function lastPage(id: string): Buffer {
  return Buffer.from(`${MAGIC}${id}\n`, "latin1");
}

/** Throws SnapshotError if the file is not the memory of `id`, of `length` bytes. */
export function checkMemory(fd: number, path: string, id: string, length: number): void {
  const size = fstatSync(fd).size;
  if (size !== length + PAGE_SIZE) {
    throw new SnapshotError(
      `${path} has ${String(size)} bytes; the guest's memory and its last page are ${String(length + PAGE_SIZE)}`,
    );
  }
  const expected = lastPage(id);
  const found = Buffer.alloc(expected.length);
  readSync(fd, found, 0, found.length, length);
  if (!found.equals(expected)) throw new SnapshotError(`${path} is not the memory of this snapshot`);
}

/** What `writeMemory` has answered as `sha256`, of the first `length` bytes of a file. Throws an error of the file system. */
export function hashMemory(fd: number, length: number): string {
  const hash = newSha256();
  const run = Buffer.alloc(RUN_BYTES);
  const words = new Uint32Array(run.buffer, run.byteOffset, RUN_BYTES / 4);
  for (let data = nextData(fd, 0); data !== undefined && data.start < length; data = nextData(fd, data.end)) {
    const end = Math.min(Math.ceil(data.end / RUN_BYTES) * RUN_BYTES, length);
    for (let at = Math.floor(data.start / RUN_BYTES) * RUN_BYTES; at < end; at += RUN_BYTES) {
      const bytes = Math.min(RUN_BYTES, length - at);
      readAll(fd, run.subarray(0, bytes), at);
      hashPages(hash, run, words, bytes / PAGE_SIZE, at);
    }
    // The rest of the last run was read, too.
    data = { start: data.start, end };
  }
  return hash.digest("hex");
}

function hashPages(hash: Hash, run: Buffer, words: Uint32Array, pages: number, at: number): void {
  for (let page = 0; page < pages; page++) {
    if (isZeroPage(words, page)) continue;
    const first = page;
    while (page + 1 < pages && !isZeroPage(words, page + 1)) page++;
    const start = first * PAGE_SIZE;
    hashRun(hash, at + start, run.subarray(start, (page + 1) * PAGE_SIZE));
  }
}

function hashRun(hash: Hash, offset: number, bytes: Uint8Array): void {
  hash.update(`${String(offset)} ${String(bytes.length)}\n`);
  hash.update(bytes);
}

function writeAll(fd: number, bytes: Uint8Array, position: number): void {
  for (let done = 0; done < bytes.length;) done += writeSync(fd, bytes, done, bytes.length - done, position + done);
}

function readAll(fd: number, bytes: Uint8Array, position: number): void {
  for (let done = 0; done < bytes.length;) {
    const count = readSync(fd, bytes, done, bytes.length - done, position + done);
    // Cut since it was opened.
    if (count === 0) throw new SnapshotError("The memory file ends before its end");
    done += count;
  }
}

function writePart(fd: number, piece: MemoryPiece, from: number, length: number, at: number, hash: Hash): number {
  const address = piece.address + from;
  const candidates = changedPages(piece, from, length);
  // SAFETY: a part of the piece, which stays mapped while its VM is paused.
  const words = new Uint32Array(viewMemory(address, length));
  const isData = (page: number): boolean => candidates[page] !== 0 && !isZeroPage(words, page);
  const pages = length / PAGE_SIZE;
  let written = 0;
  for (let page = 0; page < pages; page++) {
    if (!isData(page)) continue;
    const first = page;
    // A piece begins at a multiple of RUN_BYTES: guests have whole MiB.
    while (page + 1 < pages && (page + 1) % PAGES_A_RUN !== 0 && isData(page + 1)) page++;
    const start = first * PAGE_SIZE;
    const bytes = (page + 1 - first) * PAGE_SIZE;
    writeRun(fd, address + start, bytes, at + start);
    hashRun(hash, at + start, new Uint8Array(words.buffer, start, bytes));
    written += bytes;
  }
  return written;
}

/** Nonzero for each page that is to be written, unless it is zero. */
function changedPages(piece: MemoryPiece, from: number, length: number): Uint8Array {
  const { address, since } = piece;
  if (since === undefined) return candidatePages(piece, from, length);
  const candidates = since.candidates(from, length);
  // SAFETY: parts of two pieces of one length, both mapped while this goes on.
  const now = Buffer.from(viewMemory(address + from, length));
  const then = Buffer.from(viewMemory(since.address + from, length));
  candidates.forEach((isCandidate, page) => {
    if (isCandidate === 0) return;
    const [start, end] = [page * PAGE_SIZE, (page + 1) * PAGE_SIZE];
    if (now.compare(then, start, end, start, end) === 0) candidates[page] = 0;
    else since.changed(from / PAGE_SIZE + page);
  });
  return candidates;
}

/** Nonzero for each page that may hold something else than zeroes. */
export function candidatePages({ address, bases, isShared }: MemoryPiece, from: number, length: number): Uint8Array {
  const pages = length / PAGE_SIZE;
  const own = isShared === true ? new Uint8Array(pages) : (ownPages(address + from, length) ?? allOf(pages));
  for (const { fd, offset } of bases) {
    const start = offset + from;
    for (let data = nextData(fd, start); data !== undefined; data = nextData(fd, data.end)) {
      if (data.start >= start + length) break;
      const first = Math.floor((data.start - start) / PAGE_SIZE);
      own.fill(1, Math.max(0, first), Math.min(pages, Math.ceil((data.end - start) / PAGE_SIZE)));
    }
  }
  return own;
}

function allOf(pages: number): Uint8Array {
  return new Uint8Array(pages).fill(1);
}

export function isZeroPage(words: Uint32Array, page: number): boolean {
  const end = (page + 1) * WORDS_A_PAGE;
  for (let i = page * WORDS_A_PAGE; i < end; i++) if (words[i] !== 0) return false;
  return true;
}

const vector = new IoVectors(1);

/** Memory at an address to a place in the file. Throws SystemCallError. */
export function writeRun(fd: number, address: number, length: number, position: number): void {
  for (let done = 0; done < length;) {
    vector.clear();
    vector.append(address + done, length - done);
    const count = pwritevRaw(fd, vector, position + done);
    if (count < 0) throw systemCallError("pwritev", -count);
    done += count;
  }
}
