// Layers in the cache: streamed into it once, with both digests checked on the way, and read back to be merged.
import { createHash } from "node:crypto";
import { closeSync, fstatSync, openSync, readSync, renameSync, statSync } from "node:fs";
import { open, readFile, type FileHandle } from "node:fs/promises";
import { join } from "node:path";
import { ImageError } from "../errors.js";
import { cacheError, DATA_FILE, LIST_FILE, type ImageCache } from "./cache.js";
import { DataWriter } from "./data-writer.js";
import { compressionOf, decompress, MAGIC_BYTES } from "./decompress.js";
import { decodeEntry, type LayerEntry } from "./layer-entry.js";
import { LayerReader } from "./layer-reader.js";
import type { ImageLimits } from "./types.js";
import { Turns } from "./turns.js";

/** `bytes`: longer than the last line of a list. */
const END_BYTES = 200;

/** What a list that is whole ends with. */
interface ListEnd {
  readonly entries: number;
  /** `bytes` of the contents. */
  readonly data: number;
}

export interface LayerSource {
  /** The archive, packed or not. */
  readonly stream: AsyncIterable<Buffer>;
  /** sha256 of the stream, and of what it unpacks to: 64 hexadecimal digits; undefined where nobody knows. */
  readonly digest: string | undefined;
  readonly diffId: string | undefined;
  /** `bytes` of the stream, where they are known. */
  readonly size: number | undefined;
}

export interface ImportOptions {
  readonly limits: ImageLimits;
  readonly signal?: AbortSignal | undefined;
  /** `bytes` of the stream so far. */
  readonly onBytes?: ((done: number) => void) | undefined;
}

/** Whether the cache has the layer whole. `bytes` of its contents, or undefined. */
export function storedBytes(cache: ImageCache, diffId: string): number | undefined {
  const folder = cache.layer(diffId);
  try {
    const { data } = readEnd(join(folder, LIST_FILE));
    // A host that lost power may have a file without its end.
    return statSync(join(folder, DATA_FILE)).size === data ? data : undefined;
  } catch {
    return undefined;
  }
}

/** Brings a layer into the cache; its diff id. Throws ImageError. */
export async function importLayer(cache: ImageCache, source: LayerSource, options: ImportOptions): Promise<string> {
  const place = cache.newWorkplace();
  const files: FileHandle[] = [];
  try {
    const data = await open(join(place.path, DATA_FILE), "wx", 0o600);
    files.push(data);
    const list = await open(join(place.path, LIST_FILE), "wx", 0o600);
    files.push(list);
    const diffId = await stream(source, new DataWriter(data), new DataWriter(list), options);
    for (const file of files.splice(0)) await file.close();
    if (!place.become(cache.layer(diffId)) && storedBytes(cache, diffId) === undefined) {
      replaceDamaged(cache, diffId, () => place.become(cache.layer(diffId)));
    }
    return diffId;
  } catch (error) {
    throw cacheError(cache.folder, error);
  } finally {
    for (const file of files) await file.close();
    place.close();
  }
}

/** What lies there is of no use: it is moved away, and goes. */
function replaceDamaged(cache: ImageCache, diffId: string, become: () => boolean): void {
  const place = cache.newWorkplace();
  try {
    renameSync(cache.layer(diffId), join(place.path, "damaged"));
    become();
  } finally {
    place.close();
  }
}

async function stream(
  source: LayerSource,
  data: DataWriter,
  list: DataWriter,
  { limits, signal, onBytes }: ImportOptions,
): Promise<string> {
  const reader = new LayerReader(data, list, limits);
  const turns = new Turns(signal);
  const packed = createHash("sha256");
  const [start, rest] = await peek(source.stream);
  const compression = compressionOf(start);
  let packedBytes = 0;
  async function* counted(): AsyncGenerator<Buffer> {
    for await (const chunk of rest) {
      signal?.throwIfAborted();
      packedBytes += chunk.length;
      if (source.size !== undefined && packedBytes > source.size) throw wrongLength("is longer than", source.size);
      // What is not packed has one digest.
      if (compression !== "none") packed.update(chunk);
      onBytes?.(packedBytes);
      yield chunk;
    }
  }
  const unpacked = createHash("sha256");
  let bytes = 0;
  // What is full is written while the next bytes are looked at.
  let writing = Promise.resolve();
  for await (const chunk of decompress(counted(), compression)) {
    bytes += chunk.length;
    checkLength(bytes, packedBytes, limits);
    unpacked.update(chunk);
    reader.write(chunk);
    if (data.isFull || list.isFull) {
      await writing;
      writing = data.flush().then(() => list.flush());
      // Known when it is waited for; until then, nobody's.
      writing.catch(() => undefined);
    }
    if (turns.isOver) await turns.next();
  }
  await writing;
  const diffId = unpacked.digest("hex");
  if (source.size !== undefined && packedBytes < source.size) throw wrongLength("is shorter than", source.size);
  if (source.digest !== undefined) {
    checkDigest("A layer", compression === "none" ? diffId : packed.digest("hex"), source.digest);
  }
  if (source.diffId !== undefined) checkDigest("A layer, unpacked,", diffId, source.diffId);
  reader.end(source.digest === undefined && source.diffId === undefined);
  await data.finish();
  endList(list, reader.entries, data.position);
  await list.finish();
  return diffId;
}

function wrongLength(how: string, size: number): ImageError {
  return new ImageError(`A layer ${how} the ${String(size)} bytes that were announced`);
}

function checkLength(bytes: number, packedBytes: number, { layerBytes, ratio, ratioFromBytes }: ImageLimits): void {
  if (bytes > layerBytes) throw new ImageError(`A layer of more than ${String(layerBytes)} bytes, which is the limit`);
  if (bytes > ratioFromBytes && bytes > ratio * packedBytes) {
    throw new ImageError(`A layer unpacks to more than ${String(ratio)} times its length, which is the limit`);
  }
}

export function checkDigest(what: string, found: string, expected: string): void {
  if (found === expected) return;
  throw new ImageError(
    `${what} has the digest sha256:${found}, not sha256:${expected}: it is damaged, or not what it says`,
  );
}

/** Enough of the start to know what it is, and all of it again. */
async function peek(source: AsyncIterable<Buffer>): Promise<[start: Buffer, all: AsyncIterable<Buffer>]> {
  const iterator = source[Symbol.asyncIterator]();
  const pieces: Buffer[] = [];
  let length = 0;
  while (length < MAGIC_BYTES) {
    const next = await iterator.next();
    if (next.done === true) break;
    pieces.push(next.value);
    length += next.value.length;
  }
  async function* all(): AsyncGenerator<Buffer> {
    try {
      yield* pieces;
      for (let next = await iterator.next(); next.done !== true; next = await iterator.next()) yield next.value;
    } finally {
      await iterator.return?.();
    }
  }
  return [Buffer.concat(pieces), all()];
}

/** The last line of a list: it is whole. */
export function endList(list: DataWriter, entries: number, data: number): void {
  const end: ListEnd = { entries, data };
  list.append(Buffer.from(`${JSON.stringify(end)}\n`));
}

/** Throws for a list that is not whole. */
function readEnd(path: string): ListEnd {
  const fd = openSync(path, "r");
  try {
    const { size } = fstatSync(fd);
    const bytes = Buffer.alloc(Math.min(size, END_BYTES));
    readSync(fd, bytes, 0, bytes.length, size - bytes.length);
    const last = bytes.toString("utf8").trimEnd().split("\n").pop() ?? "";
    const { entries, data } = JSON.parse(last) as unknown as ListEnd;
    if (!Number.isSafeInteger(entries) || !Number.isSafeInteger(data)) throw new ImageError(`${path}: not whole`);
    return { entries, data };
  } finally {
    closeSync(fd);
  }
}

/** All entries of a layer in the cache, in the order of its archive. */
export async function readLayer(cache: ImageCache, diffId: string, turns: Turns): Promise<LayerEntry[]> {
  const path = join(cache.layer(diffId), LIST_FILE);
  const bytes = await readFile(path);
  const entries: LayerEntry[] = [];
  const { entries: count } = readEnd(path);
  for (let at = 0; entries.length < count;) {
    const end = bytes.indexOf(0x0a, at);
    if (end < 0) throw new ImageError(`${path}: not whole`);
    entries.push(decodeEntry(bytes.toString("utf8", at, end)));
    at = end + 1;
    if (turns.isOver) await turns.next();
  }
  return entries;
}
