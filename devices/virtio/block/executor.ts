// What a block request does to the disk: checks it against capacity and limits, has the backend
// carry it out, answers with a VIRTIO_BLK_S_*. virtio 1.2 §5.2.6.2.
import type { GuestMemory } from "../../contracts.js";
import { Reader, Writer } from "../cursor.js";
import { BACKEND_BUSY, type BlockBackend } from "./backend.js";
import {
  SECTOR_SIZE,
  VIRTIO_BLK_ID_BYTES,
  VIRTIO_BLK_RANGE_SIZE,
  VIRTIO_BLK_S_IOERR,
  VIRTIO_BLK_S_OK,
  VIRTIO_BLK_S_UNSUPP,
  VIRTIO_BLK_T_DISCARD,
  VIRTIO_BLK_T_FLUSH,
  VIRTIO_BLK_T_GET_ID,
  VIRTIO_BLK_T_IN,
  VIRTIO_BLK_T_OUT,
  VIRTIO_BLK_T_WRITE_ZEROES,
  VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP,
} from "./constants.js";
import type { BlockLimits } from "./limits.js";
import type { BlockRequest } from "./request.js";

/** Not a status for the driver: the request has to wait for a slow medium. */
export const STATUS_LATER = 0x100;

/** What the driver has negotiated, as far as it changes the answer to a request. */
export interface BlockAbilities {
  readonly canFlush: boolean;
  readonly canDiscard: boolean;
  readonly canWriteZeroes: boolean;
}

/** Numbers that only grow. */
export interface BlockCounters {
  reads: number;
  readBytes: number;
  writes: number;
  writeBytes: number;
  flushes: number;
  discards: number;
  writeZeroes: number;
  /** Requests that the backend could not carry out. */
  hostErrors: number;
  /** Requests that make no sense, or that the disk does not know. */
  refused: number;
  /** Times that the rate limiter has stopped the queue. */
  throttled: number;
  /** Requests that had to wait for the medium, without holding up others. */
  slow: number;
}

export class BlockExecutor {
  readonly #backend: BlockBackend;
  readonly #abilities: BlockAbilities;
  readonly #limits: BlockLimits;
  readonly #id: Uint8Array;
  readonly #counters: BlockCounters;
  readonly #onHostError: (request: BlockRequest, error: number) => void;
  readonly #reader: Reader;
  readonly #writer: Writer;

  constructor(
    memory: GuestMemory,
    disk: { backend: BlockBackend; abilities: BlockAbilities; limits: BlockLimits; id: Uint8Array },
    counters: BlockCounters,
    onHostError: (request: BlockRequest, error: number) => void,
  ) {
    this.#backend = disk.backend;
    this.#abilities = disk.abilities;
    this.#limits = disk.limits;
    this.#id = disk.id;
    this.#counters = counters;
    this.#onHostError = onHostError;
    this.#reader = new Reader(memory);
    this.#writer = new Writer(memory);
  }

  /** Carries the request out; VIRTIO_BLK_S_*, or STATUS_LATER for one that would have to wait, and for all ranges. */
  execute(request: BlockRequest): number {
    switch (request.type) {
      case VIRTIO_BLK_T_IN:
      case VIRTIO_BLK_T_OUT:
        return this.#transfer(request);
      case VIRTIO_BLK_T_FLUSH:
        if (!this.#abilities.canFlush) return this.#refuse(VIRTIO_BLK_S_UNSUPP);
        this.#counters.flushes++;
        return this.#answer(request, this.#backend.flush());
      case VIRTIO_BLK_T_GET_ID:
        if (request.data.byteLength !== VIRTIO_BLK_ID_BYTES) return this.#refuse(VIRTIO_BLK_S_IOERR);
        this.#writer.start(request.data);
        this.#writer.writeBytes(this.#id);
        return VIRTIO_BLK_S_OK;
      case VIRTIO_BLK_T_DISCARD:
        return this.#abilities.canDiscard ? this.#readRanges(request) : this.#refuse(VIRTIO_BLK_S_UNSUPP);
      case VIRTIO_BLK_T_WRITE_ZEROES:
        return this.#abilities.canWriteZeroes ? this.#readRanges(request) : this.#refuse(VIRTIO_BLK_S_UNSUPP);
      default:
        return this.#refuse(VIRTIO_BLK_S_UNSUPP);
    }
  }

  #transfer(request: BlockRequest): number {
    const { data, sector } = request;
    const length = data.byteLength;
    const isWrite = request.type === VIRTIO_BLK_T_OUT;
    if (isWrite && this.#backend.isReadonly) return this.#refuse(VIRTIO_BLK_S_IOERR);
    if (length === 0 || length % SECTOR_SIZE !== 0 || length > this.#limits.requestBytes) {
      return this.#refuse(VIRTIO_BLK_S_IOERR);
    }
    if (!this.#isOnDisk(sector, length / SECTOR_SIZE)) return this.#refuse(VIRTIO_BLK_S_IOERR);
    if (isWrite) {
      this.#counters.writes++;
      this.#counters.writeBytes += length;
      return this.#answer(request, this.#backend.write(sector * SECTOR_SIZE, data));
    }
    this.#counters.reads++;
    this.#counters.readBytes += length;
    return this.#answer(request, this.#backend.read(sector * SECTOR_SIZE, data));
  }

  /** DISCARD and WRITE_ZEROES: an array of ranges, each read once and checked before anything is done to one. */
  #readRanges(request: BlockRequest): number {
    const { byteLength } = request.data;
    const isDiscard = request.type === VIRTIO_BLK_T_DISCARD;
    const count = byteLength / VIRTIO_BLK_RANGE_SIZE;
    const maxSectors = isDiscard ? this.#limits.discardSectors : this.#limits.writeZeroesSectors;
    if (count === 0 || !Number.isInteger(count) || count > this.#limits.ranges) {
      return this.#refuse(VIRTIO_BLK_S_IOERR);
    }
    if (isDiscard) this.#counters.discards++;
    else this.#counters.writeZeroes++;
    this.#reader.start(request.data);
    for (let index = 0; index < count; index++) {
      const sector = this.#reader.readU64();
      const sectors = this.#reader.readU32();
      const flags = this.#reader.readU32();
      // Unmap is implied by a discard and may not be set there (§5.2.6.2).
      const known = isDiscard ? 0 : VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;
      if ((flags & ~known) !== 0) return this.#refuse(VIRTIO_BLK_S_UNSUPP);
      if (sectors > maxSectors || !this.#isOnDisk(sector, sectors)) return this.#refuse(VIRTIO_BLK_S_IOERR);
      if (sectors === 0) continue;
      request.ranges.push({ position: sector * SECTOR_SIZE, length: sectors * SECTOR_SIZE, mayUnmap: flags !== 0 });
    }
    return request.ranges.length === 0 ? VIRTIO_BLK_S_OK : STATUS_LATER;
  }

  #isOnDisk(sector: number, sectors: number): boolean {
    return sector + sectors <= this.#backend.size / SECTOR_SIZE;
  }

  #refuse(status: number): number {
    this.#counters.refused++;
    return status;
  }

  #answer(request: BlockRequest, error: number): number {
    if (error === 0) return VIRTIO_BLK_S_OK;
    if (error === BACKEND_BUSY) return STATUS_LATER;
    this.#counters.hostErrors++;
    this.#onHostError(request, error);
    return VIRTIO_BLK_S_IOERR;
  }
}
