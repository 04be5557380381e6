// The block device's backend over a file or a block device: data moves between the page cache and
// guest memory in one system call, no byte of it through JavaScript's heap.
import { getSystemErrorName } from "node:util";
import type { BlockBackend } from "../../devices/virtio/block/backend.js";
import type { Segments } from "../../devices/virtio/segments.js";
import {
  EINTR,
  ENODEV,
  ENOSYS,
  ENOTTY,
  EOPNOTSUPP,
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_PUNCH_HOLE,
  FALLOC_FL_ZERO_RANGE,
  fallocateRaw,
  fdatasyncRaw,
  IOV_MAX,
  IoVectors,
  mmapAnonymous,
  preadvRaw,
  pwritevRaw,
} from "../sys/libc.js";
import type { DiskFile } from "./disk-file.js";
import { gatherVectors, type HostAddresses } from "./host-vectors.js";

/** Our own error number: the file has become shorter than the disk. */
const TRUNCATED = -1;
/** errno of a file system or device that knows no holes. */
const UNSUPPORTED: readonly number[] = [EOPNOTSUPP, ENOTTY, ENOSYS, ENODEV];
/** `bytes` of zeroes kept to write where a file system cannot make them. */
const ZEROES_LENGTH = 64 * 1024;

type VectorCall = (fd: number, vectors: IoVectors, position: number) => number;

export class FileDisk implements BlockBackend {
  readonly size: number;
  readonly isReadOnly: boolean;
  readonly #fd: number;
  readonly #memory: HostAddresses;
  readonly #vectors = new IoVectors(IOV_MAX);
  /** fallocate modes that this file has refused: not tried again. */
  readonly #refused = new Set<number>();
  #zeroesAddress: number | undefined;

  constructor(file: DiskFile, memory: HostAddresses) {
    this.size = file.size;
    this.isReadOnly = file.isReadOnly;
    this.#fd = file.fd;
    this.#memory = memory;
  }

  read(position: number, data: Segments): number {
    return this.#transfer(preadvRaw, position, data);
  }

  write(position: number, data: Segments): number {
    return this.#transfer(pwritevRaw, position, data);
  }

  flush(): number {
    return fdatasyncRaw(this.#fd);
  }

  discard(position: number, length: number): number {
    // Advice: a file system that cannot follow it keeps the bytes, which is allowed.
    const error = this.#allocate(FALLOC_FL_PUNCH_HOLE, position, length);
    return UNSUPPORTED.includes(error) ? 0 : error;
  }

  writeZeroes(position: number, length: number, mayUnmap: boolean): number {
    let error = EOPNOTSUPP;
    if (mayUnmap) error = this.#allocate(FALLOC_FL_PUNCH_HOLE, position, length);
    if (UNSUPPORTED.includes(error)) error = this.#allocate(FALLOC_FL_ZERO_RANGE, position, length);
    return UNSUPPORTED.includes(error) ? this.#storeZeroes(position, length) : error;
  }

  explain(error: number): string {
    return error === TRUNCATED ? "the file is shorter than when it was opened" : getSystemErrorName(-error);
  }

  #transfer(call: VectorCall, position: number, data: Segments): number {
    for (let done = 0; done < data.byteLength;) {
      gatherVectors(this.#vectors, this.#memory, data, done);
      const moved = call(this.#fd, this.#vectors, position + done);
      if (moved > 0) done += moved;
      else if (moved === 0) return TRUNCATED;
      else if (moved !== -EINTR) return -moved;
    }
    return 0;
  }

  #allocate(mode: number, position: number, length: number): number {
    if (this.#refused.has(mode)) return EOPNOTSUPP;
    let error: number;
    do error = fallocateRaw(this.#fd, mode | FALLOC_FL_KEEP_SIZE, position, length);
    while (error === EINTR);
    if (UNSUPPORTED.includes(error)) this.#refused.add(mode);
    return error;
  }

  #storeZeroes(position: number, length: number): number {
    this.#zeroesAddress ??= mmapAnonymous(ZEROES_LENGTH);
    for (let done = 0; done < length;) {
      this.#vectors.clear();
      for (let left = length - done; left > 0 && this.#vectors.count < IOV_MAX;) {
        const piece = Math.min(left, ZEROES_LENGTH);
        // SAFETY: ZEROES_LENGTH bytes, mapped for the life of the process and only ever read.
        this.#vectors.append(this.#zeroesAddress, piece);
        left -= piece;
      }
      const moved = pwritevRaw(this.#fd, this.#vectors, position + done);
      if (moved > 0) done += moved;
      else if (moved === 0) return TRUNCATED;
      else if (moved !== -EINTR) return -moved;
    }
    return 0;
  }
}
