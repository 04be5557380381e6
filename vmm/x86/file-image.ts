// A kernel or initrd on disk: opened and checked before anything else exists, read straight
// into guest memory.
import { closeSync, constants, fstatSync, openSync, readSync, type BigIntStats } from "node:fs";
import { HostError, KernelImageError } from "../errors.js";
import { errnoText } from "../host/errno-text.js";
import type { MappedGuestMemory } from "../memory/guest-memory.js";
import { cureFor } from "../sys/cures.js";
import { preadInto, preadIntoLater } from "../sys/files.js";
import type { ImageSource } from "./image-source.js";

/** O_NONBLOCK: a FIFO by mistake is refused, not waited for. */
const FLAGS = constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOCTTY;
/** `bytes` of a piece of the whole file. */
const CHUNK_LENGTH = 2 ** 20;
/** Less than this is read at once: to have it done by another thread takes as long, `bytes`. */
const WORTH_A_THREAD = 256 * 1024;

/** By which a file is known again that nobody has written to since; plain data. */
export interface FileStamp {
  readonly device: string;
  readonly inode: string;
  readonly size: string;
  readonly modifiedNs: string;
}

export class FileImage implements ImageSource {
  readonly path: string;
  readonly size: number;
  readonly #fd: number;
  readonly #opened: BigIntStats;
  #memory: MappedGuestMemory | undefined;
  #later: Promise<void>[] | undefined;

  private constructor(path: string, stat: BigIntStats, fd: number) {
    this.path = path;
    this.size = Number(stat.size);
    this.#opened = stat;
    this.#fd = fd;
  }

  /** Throws KernelImageError for what is not a readable regular file. */
  static open(path: string): FileImage {
    let fd: number;
    try {
      fd = openSync(path, FLAGS);
    } catch (error) {
      const code = (error as NodeJS.ErrnoException).code ?? "";
      // The file may be as good as any.
      const cure = cureFor("open", code);
      if (cure !== undefined)
        throw new HostError(`${path}: cannot be opened: ${errnoText(code)}`, { cause: error, cure });
      throw new KernelImageError(`${path}: cannot be opened: ${errnoText(code)}`, { cause: error });
    }
    const stat = fstatSync(fd, { bigint: true });
    if (!stat.isFile()) {
      closeSync(fd);
      throw new KernelImageError(`${path}: ${stat.isDirectory() ? "a directory" : "not a regular file"}, not an image`);
    }
    return new FileImage(path, stat, fd);
  }

  /** Of a regular file that is open; whoever has opened it closes it. */
  static of(path: string, fd: number): FileImage {
    return new FileImage(path, fstatSync(fd, { bigint: true }), fd);
  }

  /** As it was when it was opened. */
  get stamp(): FileStamp {
    const { dev, ino, size, mtimeNs } = this.#opened;
    return { device: String(dev), inode: String(ino), size: String(size), modifiedNs: String(mtimeNs) };
  }

  /** Where `readInto` loads. */
  set memory(memory: MappedGuestMemory) {
    this.#memory = memory;
  }

  /**
   * From now on `readInto` leaves what is large to another thread, so that the VM is made meanwhile, and adds
   * the promise of its end here. Memory and file must stay until all of them have settled.
   */
  set later(reads: Promise<void>[]) {
    this.#later = reads;
  }

  read(offset: number, length: number): Uint8Array {
    const bytes = new Uint8Array(length);
    const count = readSync(this.#fd, bytes, 0, length, offset);
    return bytes.subarray(0, count);
  }

  readInto(offset: number, gpa: number, length: number): void {
    if (this.#memory === undefined) throw new KernelImageError(`${this.path}: no memory to load into`);
    this.#memory.willFill(gpa, length);
    const address = this.#memory.hostAddressOf(gpa, length);
    if (this.#later === undefined || length < WORTH_A_THREAD) this.#readNow(offset, address, length);
    else this.#later.push(this.#readLater(offset, address, length));
  }

  // SAFETY: `address` comes from hostAddressOf, which has checked that all `length` bytes are guest RAM.
  #readNow(offset: number, address: number, length: number): void {
    for (let done = 0; done < length;) {
      const count = preadInto(this.#fd, address + done, length - done, offset + done);
      if (count === 0) throw new KernelImageError(`${this.path}: truncated while it was being read`);
      done += count;
    }
  }

  async #readLater(offset: number, address: number, length: number): Promise<void> {
    const count = Math.max(0, await preadIntoLater(this.#fd, address, length, offset));
    // What is missing is read here, or the error met again, with its number.
    if (count < length) this.#readNow(offset + count, address + count, length - count);
  }

  /** All of the file, for whoever wants to know what is booted. Throws KernelImageError if it has changed since it was opened. */
  *chunks(): Iterable<Uint8Array> {
    const chunk = Buffer.allocUnsafe(CHUNK_LENGTH);
    for (let offset = 0; offset < this.size;) {
      const count = readSync(this.#fd, chunk, 0, Math.min(CHUNK_LENGTH, this.size - offset), offset);
      if (count === 0) break;
      offset += count;
      yield chunk.subarray(0, count);
    }
    const now = fstatSync(this.#fd, { bigint: true });
    if (now.size !== this.#opened.size || now.mtimeNs !== this.#opened.mtimeNs) {
      throw new KernelImageError(`${this.path}: changed while it was being read`);
    }
  }

  close(): void {
    closeSync(this.#fd);
  }
}
