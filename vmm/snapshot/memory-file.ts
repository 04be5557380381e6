// The memory of a VM as a sparse file: RAM from offset 0 on, without the hole between its regions, then the
// pages of the command's channel, then one page that says whose memory it is. Pages of zeroes are holes.
import { createHash, type Hash } from "node:crypto";
import { fstatSync, ftruncateSync, readSync, writeSync } from "node:fs";
import { SnapshotError } from "../errors.js";
import { PAGE_SIZE } from "../memory/layout.js";
import { IoVectors, nextData, pwritevRaw } from "../sys/files.js";
import { systemCallError } from "../sys/errno.js";
import { viewMemory } from "../sys/memory.js";
import { ownPages } from "../sys/pagemap.js";

/** A piece of the monitor's memory that goes into the file. */
export interface MemoryPiece {
  readonly address: number;
  /** `bytes`, whole pages. */
  readonly length: number;
  /** The file that it was privately mapped from, if it was: pages that it does not own are those. */
  readonly base: { readonly fd: number; readonly offset: number } | undefined;
}

export interface WrittenMemory {
  /** `bytes` that are no holes. */
  readonly dataBytes: number;
  /** SHA-256 over the pages that are not zero, each run of them after its place. */
  readonly sha256: string;
}

const MAGIC = "vmlet guest memory 1\n";
/** A view at a time: `bytes`. */
const VIEW_BYTES = 2 ** 28;
const WORDS_A_PAGE = PAGE_SIZE / 4;

/** Writes all pieces one behind the other, and the last page; `fd` is a new, empty file. Throws SystemCallError. */
export function writeMemory(fd: number, pieces: readonly MemoryPiece[], id: string): WrittenMemory {
  const hash = createHash("sha256");
  let offset = 0;
  let dataBytes = 0;
  for (const piece of pieces) {
    for (let done = 0; done < piece.length; done += VIEW_BYTES) {
      const length = Math.min(VIEW_BYTES, piece.length - done);
      dataBytes += writePart(fd, piece, done, length, offset + done, hash);
    }
    offset += piece.length;
  }
  ftruncateSync(fd, offset + PAGE_SIZE);
  writeSync(fd, Buffer.from(`${MAGIC}${id}\n`, "latin1"), 0, undefined, offset);
  return { dataBytes, sha256: hash.digest("hex") };
}

/** Throws SnapshotError if the file is not the memory of `id`, of `length` bytes. */
export function checkMemory(fd: number, path: string, id: string, length: number): void {
  const size = fstatSync(fd).size;
  if (size !== length + PAGE_SIZE) {
    throw new SnapshotError(
      `${path} has ${String(size)} bytes; the guest's memory and its last page are ${String(length + PAGE_SIZE)}`,
    );
  }
  const expected = Buffer.from(`${MAGIC}${id}\n`, "latin1");
  const found = Buffer.alloc(expected.length);
  readSync(fd, found, 0, found.length, length);
  if (!found.equals(expected)) throw new SnapshotError(`${path} is not the memory of this snapshot`);
}

function writePart(fd: number, piece: MemoryPiece, from: number, length: number, at: number, hash: Hash): number {
  const address = piece.address + from;
  const candidates = candidatePages(piece, from, length);
  // SAFETY: a part of the piece, which stays mapped while its VM is paused.
  const words = new Uint32Array(viewMemory(address, length));
  const isData = (page: number): boolean => candidates[page] !== 0 && !isZeroPage(words, page);
  const pages = length / PAGE_SIZE;
  let written = 0;
  for (let page = 0; page < pages; page++) {
    if (!isData(page)) continue;
    const first = page;
    while (page + 1 < pages && isData(page + 1)) page++;
    const start = first * PAGE_SIZE;
    const bytes = (page + 1 - first) * PAGE_SIZE;
    writeRun(fd, address + start, bytes, at + start);
    hash.update(`${String(at + start)} ${String(bytes)}\n`);
    hash.update(new Uint8Array(words.buffer, start, bytes));
    written += bytes;
  }
  return written;
}

/** Nonzero for each page that may hold something else than zeroes. */
function candidatePages({ address, base }: MemoryPiece, from: number, length: number): Uint8Array {
  const pages = length / PAGE_SIZE;
  const own = ownPages(address + from, length) ?? new Uint8Array(pages).fill(1);
  if (base === undefined) return own;
  const start = base.offset + from;
  for (let data = nextData(base.fd, start); data !== undefined; data = nextData(base.fd, data.end)) {
    if (data.start >= start + length) break;
    const first = Math.floor((data.start - start) / PAGE_SIZE);
    own.fill(1, Math.max(0, first), Math.min(pages, Math.ceil((data.end - start) / PAGE_SIZE)));
  }
  return own;
}

function isZeroPage(words: Uint32Array, page: number): boolean {
  const end = (page + 1) * WORDS_A_PAGE;
  for (let i = page * WORDS_A_PAGE; i < end; i++) if (words[i] !== 0) return false;
  return true;
}

const vector = new IoVectors(1);

function writeRun(fd: number, address: number, length: number, position: number): void {
  for (let done = 0; done < length;) {
    vector.clear();
    vector.append(address + done, length - done);
    const count = pwritevRaw(fd, vector, position + done);
    if (count < 0) throw systemCallError("pwritev", -count);
    done += count;
  }
}
