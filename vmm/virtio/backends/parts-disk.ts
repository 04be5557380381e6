// The block device's backend over several files that follow one another: a read-only disk. A read that crosses from
// one to the next becomes a read of each; every other costs what it costs of one file.
import { closeSync } from "node:fs";
import { BACKEND_BUSY, type BlockBackend } from "../../../devices/virtio/block/backend.js";
import { Segments } from "../../../devices/virtio/segments.js";
import { EIO } from "../../sys/errno.js";
import { unguarded, type Guard } from "../guard.js";
import type { DiskFile } from "./disk-file.js";
import { FileDisk } from "./file-disk.js";
import type { HostAddresses } from "./host-vectors.js";

/** linux/errno.h: EROFS. The device refuses a guest's writes before they come here. */
const READ_ONLY = 30;

interface Part {
  /** Its first byte on the disk, and that behind it. */
  readonly start: number;
  readonly end: number;
  readonly path: string;
  readonly disk: FileDisk;
}

export class PartsDisk implements BlockBackend {
  readonly size: number;
  readonly isReadonly = true;
  readonly #fd: number;
  readonly #guard: Guard;
  readonly #parts: readonly Part[];
  /** The part of the last read: the next is most likely in it, too. */
  #last = 0;
  #failed: Part | undefined;
  #piece: Segments | undefined;
  #isClosed = false;

  constructor(file: DiskFile, memory: HostAddresses, mayWait?: () => boolean, guard: Guard = unguarded) {
    this.size = file.size;
    this.#fd = file.fd;
    this.#guard = guard;
    let start = 0;
    const { parts = [], padding } = file;
    this.#parts = [...parts, ...(padding === undefined ? [] : [padding])].map((part) => {
      const end = start + part.size;
      const found: Part = { start, end, path: part.path, disk: new FileDisk(part, memory, mayWait, guard) };
      start = end;
      return found;
    });
  }

  read(position: number, data: Segments): number {
    const first = this.#partAt(position);
    if (first === undefined) return EIO;
    if (position + data.byteLength <= first.end) return this.#readOf(first, position, data);
    for (let done = 0; done < data.byteLength;) {
      const part = this.#partAt(position + done);
      if (part === undefined) return EIO;
      const length = Math.min(part.end - position - done, data.byteLength - done);
      const error = this.#readOf(part, position + done, this.#pieceOf(data, done, length));
      if (error !== 0) return error;
      done += length;
    }
    return 0;
  }

  readLater(position: number, length: number, done: (error: number, bytes: Uint8Array) => void): void {
    const first = this.#partAt(position);
    if (first !== undefined && position + length <= first.end) {
      this.#readOfLater(first, position, length, done);
      return;
    }
    const bytes = new Uint8Array(length);
    const from = (start: number): void => {
      const part = this.#partAt(position + start);
      if (part === undefined) {
        this.#later(() => done(EIO, bytes));
        return;
      }
      const piece = Math.min(part.end - position - start, length - start);
      this.#readOfLater(part, position + start, piece, (error, read) => {
        if (error === 0) bytes.set(read, start);
        if (error !== 0 || start + piece === length) done(error, bytes);
        else from(start + piece);
      });
    };
    from(0);
  }

  write(): number {
    return READ_ONLY;
  }

  discard(): number {
    return READ_ONLY;
  }

  writeZeroes(): number {
    return READ_ONLY;
  }

  flush(): number {
    return 0;
  }

  writeLater(_position: number, _bytes: Uint8Array, done: (error: number) => void): void {
    this.#later(() => done(READ_ONLY));
  }

  flushLater(done: (error: number) => void): void {
    this.#later(() => done(0));
  }

  discardLater(_position: number, _length: number, done: (error: number) => void): void {
    this.#later(() => done(READ_ONLY));
  }

  writeZeroesLater(_position: number, _length: number, _mayUnmap: boolean, done: (error: number) => void): void {
    this.#later(() => done(READ_ONLY));
  }

  explain(error: number): string {
    if (error === READ_ONLY) return "EROFS";
    const part = this.#failed ?? this.#parts[0];
    const words = part === undefined ? "EIO" : part.disk.explain(error);
    return part === undefined ? words : `${part.path}: ${words}`;
  }

  /** Closes each file once no thread uses its descriptor. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    closeSync(this.#fd);
    for (const { disk } of this.#parts) disk.close();
  }

  #readOf(part: Part, position: number, data: Segments): number {
    const error = part.disk.read(position - part.start, data);
    if (error !== 0 && error !== BACKEND_BUSY) this.#failed = part;
    return error;
  }

  #readOfLater(part: Part, position: number, length: number, done: (error: number, bytes: Uint8Array) => void): void {
    part.disk.readLater(position - part.start, length, (error, bytes) => {
      if (error !== 0) this.#failed = part;
      done(error, bytes);
    });
  }

  /** Answers come in a later turn, also those that are known at once. */
  #later(answer: () => void): void {
    setImmediate(() => this.#guard(answer));
  }

  #partAt(position: number): Part | undefined {
    const parts = this.#parts;
    const last = parts[this.#last];
    if (last !== undefined && position >= last.start && position < last.end) return last;
    let low = 0;
    let high = parts.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (position < (parts[middle]?.end ?? 0)) high = middle;
      else low = middle + 1;
    }
    const part = parts[low];
    if (part === undefined || position < part.start || position >= part.end) return undefined;
    this.#last = low;
    return part;
  }

  /** `length` bytes of `data` from its byte `from` on; good until the next call. */
  #pieceOf(data: Segments, from: number, length: number): Segments {
    const capacity = data.gpas.length;
    if (this.#piece === undefined || this.#piece.gpas.length < capacity) this.#piece = new Segments(capacity);
    const piece = this.#piece;
    piece.clear();
    let skip = from;
    for (let index = 0; index < data.count && piece.byteLength < length; index++) {
      const segment = data.lengths[index] ?? 0;
      if (skip < segment) {
        piece.append((data.gpas[index] ?? 0) + skip, Math.min(segment - skip, length - piece.byteLength));
      }
      skip = Math.max(0, skip - segment);
    }
    return piece;
  }
}
