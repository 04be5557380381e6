// A kernel or initrd on disk: opened and checked before anything else exists, read straight
// into guest memory.
import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import { KernelImageError } from "../errors.js";
import type { MappedGuestMemory } from "../memory/guest-memory.js";
import { preadInto } from "../sys/files.js";
import type { ImageSource } from "./image-source.js";

const OPEN_PROBLEMS: Readonly<Record<string, string>> = {
  ENOENT: "no such file",
  EACCES: "permission denied",
  ENOTDIR: "a part of the path is not a directory",
};

export class FileImage implements ImageSource {
  readonly path: string;
  readonly size: number;
  readonly #fd: number;
  #memory: MappedGuestMemory | undefined;

  private constructor(path: string, size: number, fd: number) {
    this.path = path;
    this.size = size;
    this.#fd = fd;
  }

  /** Throws KernelImageError for what is not a readable regular file. */
  static open(path: string): FileImage {
    let fd: number;
    try {
      fd = openSync(path, "r");
    } catch (error) {
      const code = (error as NodeJS.ErrnoException).code ?? "";
      throw new KernelImageError(`${path}: ${OPEN_PROBLEMS[code] ?? `cannot be opened (${code})`}`, { cause: error });
    }
    const stat = fstatSync(fd);
    if (!stat.isFile()) {
      closeSync(fd);
      throw new KernelImageError(`${path}: ${stat.isDirectory() ? "a directory" : "not a regular file"}, not an image`);
    }
    return new FileImage(path, stat.size, fd);
  }

  /** Where `readInto` loads. */
  set memory(memory: MappedGuestMemory) {
    this.#memory = memory;
  }

  read(offset: number, length: number): Uint8Array {
    const bytes = new Uint8Array(length);
    const count = readSync(this.#fd, bytes, 0, length, offset);
    return bytes.subarray(0, count);
  }

  readInto(offset: number, gpa: number, length: number): void {
    if (this.#memory === undefined) throw new KernelImageError(`${this.path}: no memory to load into`);
    this.#memory.willFill(gpa, length);
    for (let done = 0; done < length;) {
      const left = length - done;
      // SAFETY: hostAddressOf has checked that all bytes left are guest RAM.
      const count = preadInto(this.#fd, this.#memory.hostAddressOf(gpa + done, left), left, offset + done);
      if (count === 0) throw new KernelImageError(`${this.path}: truncated while it was being read`);
      done += count;
    }
  }

  close(): void {
    closeSync(this.#fd);
  }
}
