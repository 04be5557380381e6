// Blobs in a tar archive, found by its headers alone. One that is packed, or cannot be read from any place on, is copied
// into the cache's workplace first.
import { statSync, type BigIntStats } from "node:fs";
import { open, stat, type FileHandle } from "node:fs/promises";
import { join } from "node:path";
import { ImageError } from "../../errors.js";
import type { Workplace } from "../cache.js";
import { compressionOf, decompress, MAGIC_BYTES } from "../decompress.js";
import { showBytes } from "../show-bytes.js";
import { sha256 } from "../../sys/sha256.js";
import { TarReader, type TarEntry } from "../tar/reader.js";
import { TAR_BLOCK } from "../tar/header.js";
import { fileError, orFileError, readRange } from "./plain-folder.js";
import type { BlobFolder, SourceContext } from "./source.js";

/** An archive of an image has a few files a layer. */
const MAX_FILES = 10_000;
/** Old archives have a layer that is there twice as a link. */
const MAX_LINKS = 8;

interface Found {
  readonly start: number;
  readonly size: number;
  /** Of a link: where it leads, from the archive's root. */
  readonly link: string | undefined;
}

export class Archive implements BlobFolder {
  readonly name: string;
  /** The archive itself, unpacked. */
  readonly file: string;
  readonly #files: ReadonlyMap<string, Found>;
  readonly #place: Workplace | undefined;

  private constructor(name: string, path: string, files: ReadonlyMap<string, Found>, place: Workplace | undefined) {
    this.name = name;
    this.file = path;
    this.#files = files;
    this.#place = place;
  }

  /** Throws ImageError for what is no tar archive. */
  static async open(path: string, context: SourceContext): Promise<Archive> {
    const found = await orFileError(path, stat(path));
    if (found.isFile() && compressionOf(await firstBytes(path)) === "none") {
      return new Archive(path, path, await index(path, context.signal), undefined);
    }
    if (found.isDirectory()) throw new ImageError(`${path}: a folder, not an archive`);
    return Archive.spool(path, streamOf(path), found.isFile() ? found.size : undefined, context);
  }

  /** Of an archive that comes once. `name` is for messages, `size` in bytes. */
  static async spool(
    name: string,
    stream: AsyncIterable<Buffer>,
    size: number | undefined,
    { cache, limits, signal, onDownload }: SourceContext,
  ): Promise<Archive> {
    const place = cache.newWorkplace();
    try {
      const path = join(place.path, "archive");
      const file = await open(path, "wx", 0o600);
      try {
        const iterator = stream[Symbol.asyncIterator]();
        const first = await iterator.next();
        let read = 0;
        async function* all(): AsyncGenerator<Buffer> {
          for (let next = first; next.done !== true; next = await iterator.next()) {
            signal?.throwIfAborted();
            read += next.value.length;
            onDownload?.(read, size);
            yield next.value;
          }
        }
        const how = first.done === true ? "none" : compressionOf(first.value);
        let written = 0;
        for await (const chunk of decompress(all(), how)) {
          written += chunk.length;
          if (written > limits.layerBytes) {
            throw new ImageError(`${name}: more than ${String(limits.layerBytes)} bytes, which is the limit`);
          }
          await writeAll(file, chunk);
        }
      } finally {
        await file.close();
      }
      return new Archive(name, path, await index(path, signal), place);
    } catch (error) {
      place.close();
      throw error;
    }
  }

  has(path: string): Promise<boolean> {
    return Promise.resolve(this.#find(path) !== undefined);
  }

  async readAll(path: string, maxBytes: number): Promise<Buffer> {
    const { size } = this.#get(path);
    if (size > maxBytes) {
      throw new ImageError(`${this.name}: ${path} has ${String(size)} bytes, more than ${String(maxBytes)}`);
    }
    const pieces: Buffer[] = [];
    for await (const chunk of this.read(path)) pieces.push(chunk);
    return Buffer.concat(pieces);
  }

  size(path: string): Promise<number> {
    return Promise.resolve(this.#get(path).size);
  }

  async *read(path: string): AsyncGenerator<Buffer> {
    const { start, size } = this.#get(path);
    yield* readRange(this.file, start, size);
  }

  close(): Promise<void> {
    this.#place?.close();
    return Promise.resolve();
  }

  #get(path: string): Found {
    const found = this.#find(path);
    if (found === undefined) throw new ImageError(`${this.name}: it has no ${showBytes(path)}`);
    return found;
  }

  #find(path: string): Found | undefined {
    let name = normal(path);
    for (let links = 0; links <= MAX_LINKS; links++) {
      const found = this.#files.get(name);
      if (found?.link === undefined) return found;
      name = found.link;
    }
    return undefined;
  }
}

/** Where the files of an archive lie in it. A later one counts, as tar has it. */
async function index(path: string, signal: AbortSignal | undefined): Promise<Map<string, Found>> {
  const files = new Map<string, Found>();
  const file = await orFileError(path, open(path, "r"));
  try {
    let position = 0;
    const { size: length } = await file.stat();
    const reader = new TarReader({
      entry: (entry) => {
        files.set(normal(entry.name), { start: position + TAR_BLOCK, size: entry.size, link: linkOf(entry) });
      },
      data: () => undefined,
      // What an image's archive needs has no holes: such a file's digest will be wrong.
      hole: () => undefined,
    });
    const block = Buffer.alloc(TAR_BLOCK);
    // With so many files it is the archive of something else, and what an image needs is in front or nowhere.
    while (!reader.hasEnded && position < length && files.size < MAX_FILES) {
      signal?.throwIfAborted();
      const { bytesRead } = await file.read(block, 0, TAR_BLOCK, position);
      reader.write(block.subarray(0, bytesRead));
      position += bytesRead + reader.contentLeft;
      if (position > length) throw new ImageError(`${path}: the archive was cut off`);
      reader.skipContentIfAny();
    }
    if (files.size < MAX_FILES) reader.end(false);
    return files;
  } catch (error) {
    if (error instanceof ImageError)
      throw new ImageError(`${path}: ${error.message}`, { cause: error, cure: error.cure });
    throw error;
  } finally {
    await file.close();
  }
}

function linkOf({ type, name, linkName }: TarEntry): string | undefined {
  if (type === "link") return normal(linkName);
  if (type !== "symlink") return undefined;
  return normal(linkName.startsWith("/") ? linkName : `${name}/../${linkName}`);
}

/** What leads out of the archive leads to nothing. */
function normal(path: string): string {
  const names: string[] = [];
  for (const name of path.split("/")) {
    if (name === "..") names.pop();
    else if (name !== "" && name !== ".") names.push(name);
  }
  return names.join("/");
}

async function firstBytes(path: string): Promise<Buffer> {
  for await (const chunk of readRange(path, 0, undefined)) return chunk.subarray(0, MAGIC_BYTES);
  return Buffer.alloc(0);
}

/** Also of what has no length, as a FIFO. */
export async function* streamOf(path: string): AsyncGenerator<Buffer> {
  if ((await orFileError(path, stat(path))).isFile()) {
    yield* readRange(path, 0, undefined);
    return;
  }
  const file = await orFileError(path, open(path, "r"));
  try {
    for await (const chunk of file.createReadStream({ autoClose: false })) yield chunk as Buffer;
  } finally {
    await file.close();
  }
}

async function writeAll(file: FileHandle, bytes: Buffer): Promise<void> {
  for (let done = 0; done < bytes.length;) done += (await file.write(bytes, done, bytes.length - done)).bytesWritten;
}

/** What is known of a file without reading it, for whether it is still the same. */
export function stampOf(path: string): string | undefined {
  const found = statOf(path);
  if (!found.isFile()) return undefined;
  const { dev, ino, size, mtimeNs, ctimeNs } = found;
  return sha256(Buffer.from([dev, ino, size, mtimeNs, ctimeNs].join(" ")));
}

function statOf(path: string): BigIntStats {
  try {
    return statSync(path, { bigint: true });
  } catch (error) {
    throw fileError(path, error);
  }
}
