// The pages of a guest's memory on their way from one monitor to another: RAM as one piece, then the pages of the
// command's channel. Only those that are asked for; pages of zeroes are named and not sent.
import { CHANNEL_BYTES } from "../../../devices/pseudo/command-channel.js";
import type { CommandPages } from "../../memory/command-pages.js";
import type { MappedGuestMemory } from "../../memory/guest-memory.js";
import { PAGE_SIZE } from "../../memory/layout.js";
import { hasPage } from "../../memory/saved-memory.js";
import { pageWords } from "../../memory/written-pages.js";
import { MADV_DONTNEED, madviseRaw, viewMemory } from "../../sys/memory.js";
import { candidatePages, isZeroPage, type MemoryPiece } from "../memory-file.js";
import type { MigrationConnection } from "./connection.js";
import { MAX_PAGES_BYTES, OFFSET_BYTES, ProtocolError, type Frame } from "./frames.js";

/** `bytes` of memory that are viewed at a time. */
const VIEW_BYTES = 2 ** 24;
const PAGES_A_FRAME = MAX_PAGES_BYTES / PAGE_SIZE / 4;
/** So many pages are sent before others have their turn: the guest's devices, and what the other end has to say. */
const PAGES_A_TURN = 256;

export interface SentPages {
  readonly pages: number;
  readonly bytes: number;
}

/** A bit for each page of RAM that may hold something. */
export function presentPages(ram: MemoryPiece): Uint32Array {
  const pages = new Uint32Array(pageWords(ram.length));
  for (let from = 0; from < ram.length; from += VIEW_BYTES) {
    const candidates = candidatePages(ram, from, Math.min(VIEW_BYTES, ram.length - from));
    candidates.forEach((isCandidate, index) => {
      if (isCandidate !== 0) setPage(pages, from / PAGE_SIZE + index);
    });
  }
  return pages;
}

function setPage(pages: Uint32Array, page: number): void {
  pages[page >>> 5] = (pages[page >>> 5] ?? 0) | (1 << (page & 31));
}

export function allPages(length: number): Uint32Array {
  const pages = new Uint32Array(pageWords(length));
  for (let page = 0; page < length / PAGE_SIZE; page++) setPage(pages, page);
  return pages;
}

/**
 * Sends the pages of a piece that have their bit; `at`: the piece's offset on the way. `namesZeros`: the other end may
 * have had something where there are zeroes now.
 */
export async function sendPages(
  connection: MigrationConnection,
  piece: MemoryPiece,
  at: number,
  pages: Uint32Array,
  namesZeros: boolean,
): Promise<SentPages> {
  let count = 0;
  let bytes = 0;
  let turn = 0;
  const send = async (first: number, length: number): Promise<void> => {
    // A copy: the guest goes on writing.
    const copy = Buffer.alloc(OFFSET_BYTES + length * PAGE_SIZE);
    const content = copy.subarray(OFFSET_BYTES);
    // SAFETY: a part of the piece, which stays mapped while its VM is held open; nothing else comes between.
    content.set(new Uint8Array(viewMemory(piece.address + first * PAGE_SIZE, length * PAGE_SIZE)));
    const words = new Uint32Array(content.buffer, content.byteOffset, content.length / 4);
    for (let index = 0; index < length;) {
      const start = index;
      const isZero = isZeroPage(words, start);
      while (index < length && isZeroPage(words, index) === isZero) index++;
      const offset = at + (first + start) * PAGE_SIZE;
      count += index - start;
      if (!isZero) {
        bytes += (index - start) * PAGE_SIZE;
        // In front of the run: what was there has been sent before.
        const frame = copy.subarray(start * PAGE_SIZE, OFFSET_BYTES + index * PAGE_SIZE);
        const payload = start === 0 ? frame : Buffer.from(frame);
        payload.writeBigUInt64LE(BigInt(offset));
        await connection.send("pages", payload);
      } else if (namesZeros) {
        const payload = Buffer.alloc(2 * OFFSET_BYTES);
        payload.writeBigUInt64LE(BigInt(offset));
        payload.writeBigUInt64LE(BigInt((index - start) * PAGE_SIZE), OFFSET_BYTES);
        await connection.send("zeros", payload);
      }
    }
  };
  const total = piece.length / PAGE_SIZE;
  for (let page = 0; page < total; page++) {
    if (page % 32 === 0 && (pages[page >>> 5] ?? 0) === 0) {
      page += 31;
      continue;
    }
    if (!hasPage(pages, page)) continue;
    const first = page;
    while (page + 1 < total && page + 1 - first < PAGES_A_FRAME && hasPage(pages, page + 1)) page++;
    await send(first, page + 1 - first);
    turn += page + 1 - first;
    if (turn < PAGES_A_TURN) continue;
    turn = 0;
    await new Promise((resolve) => setImmediate(resolve));
  }
  return { pages: count, bytes };
}

/** Memory that is being filled. */
export class PageSink {
  readonly memory: MappedGuestMemory;
  readonly channel: CommandPages | undefined;

  constructor(memory: MappedGuestMemory, channel: CommandPages | undefined) {
    this.memory = memory;
    this.channel = channel;
  }

  /** Takes a frame of pages or zeroes. Throws ProtocolError for what does not lie in this memory. */
  take({ kind, payload }: Frame): void {
    if (payload.length < (kind === "zeros" ? 2 * OFFSET_BYTES : OFFSET_BYTES))
      throw new ProtocolError("pages cut short");
    const offset = Number(payload.readBigUInt64LE(0));
    const length = kind === "zeros" ? Number(payload.readBigUInt64LE(OFFSET_BYTES)) : payload.length - OFFSET_BYTES;
    const address = this.#address(offset, length);
    if (kind === "pages") {
      // SAFETY: #address has checked that all of it is this memory, which nobody else uses yet.
      new Uint8Array(viewMemory(address, length)).set(payload.subarray(OFFSET_BYTES));
      return;
    }
    // SAFETY: as above; anonymous memory, which reads 0 afterwards.
    if (madviseRaw(address, length, MADV_DONTNEED) !== 0) new Uint8Array(viewMemory(address, length)).fill(0);
  }

  #address(offset: number, length: number): number {
    const { size, hostAddress } = this.memory;
    const isWhole = Number.isSafeInteger(offset) && offset % PAGE_SIZE === 0 && length % PAGE_SIZE === 0 && length > 0;
    if (isWhole && length <= size && offset <= size - length) return hostAddress + offset;
    const inChannel = offset - size;
    if (isWhole && this.channel !== undefined && inChannel >= 0 && inChannel + length <= CHANNEL_BYTES) {
      return this.channel.region.hva + inChannel;
    }
    throw new ProtocolError(`${String(length)} bytes at ${String(offset)} are not in the guest's memory`);
  }
}
