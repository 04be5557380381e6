// The block device's backend over a file or a block device: data moves between the page cache and
// guest memory in one system call, no byte of it through JavaScript's heap. What would have to wait
// for the medium is left to Node's thread pool: reads of what is not in the page cache, flushes,
// writes once they have been seen to take long, and whatever disk-ranges.ts does.
import { closeSync, fdatasync, read, write } from "node:fs";
import { getSystemErrorName } from "node:util";
import { BACKEND_BUSY, type BlockBackend } from "../../../devices/virtio/block/backend.js";
import type { Segments } from "../../../devices/virtio/segments.js";
import { EAGAIN, EBADF, EINTR, EIO, EOPNOTSUPP } from "../../sys/errno.js";
import {
  fdatasyncRaw,
  fileSystemOf,
  IOV_MAX,
  IoVectors,
  preadvCachedRaw,
  preadvRaw,
  pwritevRaw,
} from "../../sys/files.js";
import { unguarded, type Guard } from "../guard.js";
import type { DiskFile } from "./disk-file.js";
import { DiskRanges, TRUNCATED, type CallElsewhere } from "./disk-ranges.js";
import { gatherVectors, type HostAddresses } from "./host-vectors.js";

/** `ms`: a write into the page cache takes microseconds, unless the kernel has it wait for the medium. */
const SLOW_WRITE_MS = 5;
/** linux/magic.h: file systems whose files are memory. */
const MEMORY_FILE_SYSTEMS: readonly number[] = [0x01021994 /* TMPFS_MAGIC */, 0x858458f6 /* RAMFS_MAGIC */];

type VectorCall = (fd: number, vectors: IoVectors, position: number) => number;

export class FileDisk implements BlockBackend {
  readonly size: number;
  readonly isReadonly: boolean;
  readonly #fd: number;
  readonly #memory: HostAddresses;
  readonly #mayWait: () => boolean;
  readonly #guard: Guard;
  readonly #vectors = new IoVectors(IOV_MAX);
  readonly #ranges: DiskRanges;
  /** How a read that may not wait is made. */
  #readNow: VectorCall = preadvCachedRaw;
  /** The last write took long: the next ones do not hold this thread up. */
  #areWritesSlow = false;
  /** Something has been written since the last flush; at the start, another program may have. */
  #isDirty = true;
  #flushes = 0;
  /** Calls that other threads are making. */
  #calls = 0;
  #isClosed = false;

  /** `mayWait` tells whether this thread may wait for the medium because nothing else needs it now. */
  constructor(file: DiskFile, memory: HostAddresses, mayWait: () => boolean = () => false, guard: Guard = unguarded) {
    this.size = file.size;
    this.isReadonly = file.isReadonly;
    this.#fd = file.fd;
    this.#memory = memory;
    this.#mayWait = mayWait;
    this.#guard = guard;
    this.#ranges = new DiskRanges(file.fd, this.#call);
  }

  read(position: number, data: Segments): number {
    if (this.#mayWait()) return this.#transfer(preadvRaw, position, data);
    const result = this.#transfer(this.#readNow, position, data);
    if (result !== EOPNOTSUPP || this.#readNow !== preadvCachedRaw) return result;
    this.#readNow = this.#isMemory() ? preadvRaw : alwaysBusy;
    return this.read(position, data);
  }

  write(position: number, data: Segments): number {
    if (this.#areWritesSlow && !this.#mayWait()) return BACKEND_BUSY;
    const startMs = performance.now();
    this.#isDirty = true;
    const result = this.#transfer(pwritevRaw, position, data);
    this.#areWritesSlow = performance.now() - startMs >= SLOW_WRITE_MS;
    return result;
  }

  flush(): number {
    if (this.#mayWait()) {
      const error = fdatasyncRaw(this.#fd);
      this.#isDirty = error !== 0;
      return error;
    }
    return this.#isDirty || this.#flushes > 0 ? BACKEND_BUSY : 0;
  }

  readLater(position: number, length: number, done: (error: number, bytes: Uint8Array) => void): void {
    const bytes = new Uint8Array(length);
    const from = (start: number): void => {
      this.#call(
        (called) => read(this.#fd, bytes, start, length - start, position + start, called),
        (error, count) => {
          if (error !== 0 || start + count === length) done(error, bytes);
          else if (count === 0) done(TRUNCATED, bytes);
          else from(start + count);
        },
      );
    };
    from(0);
  }

  writeLater(position: number, bytes: Uint8Array, done: (error: number) => void): void {
    const startMs = performance.now();
    const from = (start: number): void => {
      this.#call(
        (called) => write(this.#fd, bytes, start, bytes.length - start, position + start, called),
        (error, count) => {
          this.#isDirty = true;
          if (error === 0 && start + count < bytes.length) {
            from(start + count);
            return;
          }
          this.#areWritesSlow = performance.now() - startMs >= SLOW_WRITE_MS;
          done(error);
        },
      );
    };
    from(0);
  }

  flushLater(done: (error: number) => void): void {
    // What is written from here on is the next flush's.
    this.#isDirty = false;
    this.#flushes++;
    this.#call(
      (called) => fdatasync(this.#fd, (error) => called(error, 0)),
      (error) => {
        this.#flushes--;
        if (error !== 0) this.#isDirty = true;
        done(error);
      },
    );
  }

  /** Closes the file once no thread uses its descriptor: afterwards its number may be another file's. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    if (this.#calls === 0) closeSync(this.#fd);
  }

  discard(position: number, length: number): number {
    if (!this.#mayWait()) return BACKEND_BUSY;
    this.#isDirty = true;
    return this.#ranges.discard(position, length);
  }

  writeZeroes(position: number, length: number, mayUnmap: boolean): number {
    if (!this.#mayWait()) return BACKEND_BUSY;
    this.#isDirty = true;
    return this.#ranges.writeZeroes(position, length, mayUnmap);
  }

  discardLater(position: number, length: number, done: (error: number) => void): void {
    this.#ranges.discardLater(position, length, (error) => {
      this.#isDirty = true;
      done(error);
    });
  }

  writeZeroesLater(position: number, length: number, mayUnmap: boolean, done: (error: number) => void): void {
    this.#ranges.writeZeroesLater(position, length, mayUnmap, (error) => {
      this.#isDirty = true;
      done(error);
    });
  }

  /** A call on another thread, to which the file stays open. */
  readonly #call: CallElsewhere = (start, done) => {
    if (this.#isClosed) {
      done(EBADF, 0);
      return;
    }
    this.#calls++;
    start((error, count) => {
      this.#guard(() => {
        this.#calls--;
        if (this.#isClosed && this.#calls === 0) closeSync(this.#fd);
        const errno = typeof error === "number" ? error : error === null ? 0 : (error.errno ?? EIO);
        done(Math.abs(errno), count);
      });
    });
  };

  /** Whether the file lies in memory only. */
  #isMemory(): boolean {
    return MEMORY_FILE_SYSTEMS.includes(fileSystemOf(this.#fd));
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
      else if (moved === -EAGAIN) return BACKEND_BUSY;
      else if (moved !== -EINTR) return -moved;
    }
    return 0;
  }
}

/** For a file system that cannot say whether a read would wait. */
function alwaysBusy(): number {
  return -EAGAIN;
}
