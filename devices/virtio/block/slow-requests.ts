// Requests that have to wait for the medium, while the thread that owns the device goes on: carried
// out elsewhere by the backend, in pieces and through buffers of the host. Guest memory is touched
// only when a piece has come back and the driver still wants it, never after a reset.
import type { GuestMemory } from "../../contracts.js";
import type { DescriptorChain } from "../chain.js";
import { Reader, Writer } from "../cursor.js";
import { Segments } from "../segments.js";
import { BACKEND_BUSY, type BlockBackend } from "./backend.js";
import { SECTOR_SIZE, VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_IN } from "./constants.js";
import type { BlockRange, BlockRequest } from "./request.js";

/** Requests at a time: with the size of a piece, what a guest may make the host hold in memory. */
export const MAX_SLOW_REQUESTS = 16;
/** `bytes` */
const PIECE_LENGTH = 1024 * 1024;
/** `bytes` of a range for which there may be no way but writing them: what is begun is finished, also at a reset. */
export const RANGE_PIECE_LENGTH = 16 * 1024 * 1024;

/** A request out of its chain, whose descriptors the driver may change meanwhile. */
export interface SlowRequest {
  readonly type: number;
  readonly sector: number;
  readonly head: number;
  /** Where the status goes: the last device-writable byte. */
  readonly statusGpa: number;
  /** Device-writable `bytes`, status included. */
  readonly writableBytes: number;
  readonly data: Segments;
  readonly ranges: readonly BlockRange[];
  /** False once its driver has reset the device. */
  readonly isWanted: () => boolean;
}

export class SlowRequests {
  readonly #backend: BlockBackend;
  readonly #finished: (request: SlowRequest, error: number) => void;
  readonly #defer: (task: () => void) => void;
  #count = 0;
  /** Answered by the flush that is under way ... */
  #flushing: SlowRequest[] = [];
  /** ... and by the one after it, because they came later. */
  #flushingNext: SlowRequest[] = [];

  /** `finished` takes each request in a later turn, also those that nobody wants any more; `defer` makes such turns. */
  constructor(
    backend: BlockBackend,
    finished: (request: SlowRequest, error: number) => void,
    defer: (task: () => void) => void,
  ) {
    this.#backend = backend;
    this.#finished = (request, error) =>
      defer(() => {
        this.#count--;
        finished(request, error);
      });
    this.#defer = defer;
  }

  /** True if all that were begun have been answered. */
  get isIdle(): boolean {
    return this.#count === 0;
  }

  /** True if no more fit until one is finished. */
  get isFull(): boolean {
    return this.#count >= MAX_SLOW_REQUESTS;
  }

  start(request: BlockRequest, chain: DescriptorChain, memory: GuestMemory, isWanted: () => boolean): void {
    const { type, sector } = request;
    const slow = {
      type,
      sector,
      ...answerPlace(chain),
      data: copyOf(request.data),
      ranges: [...request.ranges],
      isWanted,
    };
    this.#count++;
    if (slow.ranges.length > 0) this.#eachRange(slow);
    else if (type === VIRTIO_BLK_T_FLUSH) this.#flush(slow);
    else if (type === VIRTIO_BLK_T_IN) this.#read(slow, memory);
    else this.#write(slow, memory);
  }

  #read(slow: SlowRequest, memory: GuestMemory): void {
    const writer = new Writer(memory);
    writer.start(slow.data);
    const next = (): void => {
      const position = slow.sector * SECTOR_SIZE + slow.data.byteLength - writer.remaining;
      this.#backend.readLater(position, Math.min(writer.remaining, PIECE_LENGTH), (error, bytes) => {
        if (error === 0 && slow.isWanted()) {
          writer.writeBytes(bytes);
          if (writer.remaining > 0) {
            next();
            return;
          }
        }
        this.#finished(slow, error);
      });
    };
    next();
  }

  #write(slow: SlowRequest, memory: GuestMemory): void {
    const reader = new Reader(memory);
    reader.start(slow.data);
    const next = (): void => {
      const position = slow.sector * SECTOR_SIZE + slow.data.byteLength - reader.remaining;
      const bytes = new Uint8Array(Math.min(reader.remaining, PIECE_LENGTH));
      for (let done = 0; done < bytes.length;) {
        const window = reader.window(bytes.length - done);
        bytes.set(window, done);
        done += window.length;
      }
      this.#backend.writeLater(position, bytes, (error) => {
        if (error === 0 && slow.isWanted() && reader.remaining > 0) next();
        else this.#finished(slow, error);
      });
    };
    next();
  }

  /** A piece a turn, so that nobody else has to wait for them all; the first that fails ends the request. */
  #eachRange(slow: SlowRequest): void {
    const pieces = piecesOf(slow.ranges);
    const next = (error: number): void => {
      const piece = error === 0 && slow.isWanted() ? pieces.next().value : undefined;
      if (piece === undefined) this.#finished(slow, error);
      else this.#onePiece(slow.type === VIRTIO_BLK_T_DISCARD, piece, (result) => this.#defer(() => next(result)));
    };
    next(0);
  }

  #onePiece(isDiscard: boolean, { position, length, mayUnmap }: BlockRange, done: (error: number) => void): void {
    const backend = this.#backend;
    const error = isDiscard ? backend.discard(position, length) : backend.writeZeroes(position, length, mayUnmap);
    if (error !== BACKEND_BUSY) done(error);
    else if (isDiscard) backend.discardLater(position, length, done);
    else backend.writeZeroesLater(position, length, mayUnmap, done);
  }

  /** One at a time: a flush answers all that were asked for before it has begun. */
  #flush(slow: SlowRequest): void {
    this.#flushingNext.push(slow);
    if (this.#flushing.length === 0) this.#flushNext();
  }

  #flushNext(): void {
    this.#flushing = this.#flushingNext;
    this.#flushingNext = [];
    if (this.#flushing.length === 0) return;
    this.#backend.flushLater((error) => {
      const flushed = this.#flushing;
      this.#flushNext();
      for (const slow of flushed) this.#finished(slow, error);
    });
  }
}

function answerPlace({ head, writable }: DescriptorChain): Pick<SlowRequest, "head" | "statusGpa" | "writableBytes"> {
  const { gpas, lengths, count, byteLength } = writable;
  const statusGpa = (gpas[count - 1] ?? 0) + (lengths[count - 1] ?? 0) - 1;
  return { head, statusGpa, writableBytes: byteLength };
}

function* piecesOf(ranges: readonly BlockRange[]): Generator<BlockRange, undefined> {
  for (const { position, length, mayUnmap } of ranges) {
    for (let done = 0; done < length; done += RANGE_PIECE_LENGTH) {
      yield { position: position + done, length: Math.min(RANGE_PIECE_LENGTH, length - done), mayUnmap };
    }
  }
}

function copyOf({ gpas, lengths, count }: Segments): Segments {
  const copy = new Segments(count);
  for (let index = 0; index < count; index++) copy.append(gpas[index] ?? 0, lengths[index] ?? 0);
  return copy;
}
