// Blobs in a folder of this host. Their names come from the image: they are digests, or checked.
import { constants } from "node:fs";
import { open, stat } from "node:fs/promises";
import { join } from "node:path";
import { ImageError } from "../../errors.js";
import { errnoText } from "../../host/errno-text.js";
import type { BlobFolder } from "./source.js";

/** `bytes` of one read. */
export const READ_BYTES = 256 * 1024;
/** A FIFO by mistake is refused, not waited for. */
const READ_FLAGS = constants.O_RDONLY | constants.O_NONBLOCK;

export class PlainFolder implements BlobFolder {
  readonly name: string;

  constructor(path: string) {
    this.name = path;
  }

  async has(path: string): Promise<boolean> {
    return stat(this.#at(path)).then(
      (found) => found.isFile(),
      () => false,
    );
  }

  async readAll(path: string, maxBytes: number): Promise<Buffer> {
    const pieces: Buffer[] = [];
    let length = 0;
    for await (const chunk of this.read(path)) {
      length += chunk.length;
      if (length > maxBytes) throw new ImageError(`${this.#at(path)}: more than ${String(maxBytes)} bytes`);
      pieces.push(chunk);
    }
    return Buffer.concat(pieces);
  }

  async size(path: string): Promise<number> {
    return (await orFileError(this.#at(path), stat(this.#at(path)))).size;
  }

  async *read(path: string): AsyncGenerator<Buffer> {
    yield* readRange(this.#at(path), 0, undefined);
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  #at(path: string): string {
    if (path.includes("\0") || path.split("/").includes(".."))
      throw new ImageError(`${this.name}: a file outside of it is named`);
    return join(this.name, path);
  }
}

/** `length` bytes of a file from `start` on, or all that follow. */
export async function* readRange(path: string, start: number, length: number | undefined): AsyncGenerator<Buffer> {
  const file = await orFileError(path, open(path, READ_FLAGS));
  let next: Promise<Buffer> | undefined;
  try {
    if (!(await file.stat()).isFile()) throw new ImageError(`${path}: not a file`);
    let position = start;
    let left = length ?? Infinity;
    // The next piece is read while the last one is used.
    const begin = (): Promise<Buffer> | undefined => {
      if (left === 0) return undefined;
      // A new one each time: what was read before may still be written.
      const chunk = Buffer.allocUnsafeSlow(Math.min(READ_BYTES, left));
      const reading = file.read(chunk, 0, chunk.length, position).then(({ bytesRead }) => chunk.subarray(0, bytesRead));
      // Whoever stops in between never asks what has become of it.
      reading.catch(() => undefined);
      return reading;
    };
    next = begin();
    while (next !== undefined) {
      const chunk = await next;
      if (chunk.length === 0) {
        if (length === undefined) return;
        throw new ImageError(`${path}: shorter than it was a moment ago`);
      }
      position += chunk.length;
      left -= chunk.length;
      next = begin();
      yield chunk;
    }
  } catch (error) {
    throw fileError(path, error);
  } finally {
    await next?.catch(() => undefined);
    await file.close();
  }
}

/** What the promise gives; errors of system calls name the path. */
export async function orFileError<Result>(path: string, promise: Promise<Result>): Promise<Result> {
  try {
    return await promise;
  } catch (error) {
    throw fileError(path, error);
  }
}

export function fileError(path: string, error: unknown): unknown {
  const { code, syscall } = error as NodeJS.ErrnoException;
  if (code === undefined || syscall === undefined) return error;
  return new ImageError(`${path}: ${errnoText(code)}`, { cause: error });
}
