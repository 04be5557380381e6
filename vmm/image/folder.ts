// A folder of this host as a root: its files are copied into the cache, once for each state of the folder. Whether it has
// changed is told by what the host says of every file, its time of change among it, which no program can set.
import { createHash } from "node:crypto";
import { closeSync, constants, fstatSync, openSync, readSync, realpathSync } from "node:fs";
import { open, type FileHandle } from "node:fs/promises";
import { join } from "node:path";
import { ImageError } from "../errors.js";
import { errnoText } from "../host/errno-text.js";
import { nextData } from "../sys/files.js";
import { readXattrs } from "../sys/xattrs.js";
import { cacheError, DATA_FILE, LIST_FILE, type ImageCache } from "./cache.js";
import { DataWriter } from "./data-writer.js";
import { BLOCK_SIZE } from "./erofs/format.js";
import { walkFolder, type FoundFile } from "./folder-walk.js";
import type { HeldImage } from "./image-store.js";
import { encodeEntry, type LayerEntry } from "./layer-entry.js";
import { keptXattrs } from "./layer-reader.js";
import { endList, storedBytes } from "./layer-store.js";
import { writeName } from "./names.js";
import { makeOfLayers, type PrepareContext } from "./prepare.js";
import { showBytes } from "./show-bytes.js";
import { Turns } from "./turns.js";
import { EMPTY_CONFIG, type ImageLimits } from "./types.js";

/** `bytes` of one read. */
const READ_BYTES = 256 * 1024;
/** The file that was found, and no other that has taken its name. */
const READ_FLAGS = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK | constants.O_NOCTTY;

/** The image of the tree below a folder, as it is now. Throws ImageError. */
export async function prepareFolder(path: string, context: PrepareContext): Promise<HeldImage> {
  const { cache, limits, signal, onProgress } = context;
  const turns = new Turns(signal);
  const root = realPath(path);
  const files = await walkFolder(root, limits, turns);
  const hash = createHash("sha256").update("folder 1\n");
  let total = 0;
  for (const file of files) {
    hash.update(JSON.stringify([file.path, file.state]));
    if (file.kind === "file") total += file.size;
    if (turns.isOver) await turns.next();
  }
  const layer = hash.digest("hex");
  if (storedBytes(cache, layer) === undefined) {
    if (total > limits.layerBytes) {
      throw new ImageError(`${path}: ${String(total)} bytes, more than ${String(limits.layerBytes)}`);
    }
    await copy(cache, { root, files, layer, limits, turns }, (done) => onProgress?.({ phase: "unpack", done, total }));
  }
  const held = await makeOfLayers([layer], EMPTY_CONFIG, context);
  writeName(cache, { reference: `tar:${root}`, id: held.id, stamp: layer });
  return held;
}

function realPath(path: string): string {
  try {
    return realpathSync(path);
  } catch (error) {
    throw new ImageError(`${path}: ${errnoText((error as NodeJS.ErrnoException).code ?? "")}`, { cause: error });
  }
}

interface CopyWork {
  readonly root: string;
  readonly files: readonly FoundFile[];
  readonly layer: string;
  readonly limits: ImageLimits;
  readonly turns: Turns;
}

async function copy(
  cache: ImageCache,
  { root, files, layer, limits, turns }: CopyWork,
  onBytes: (done: number) => void,
): Promise<void> {
  const place = cache.newWorkplace();
  const handles: FileHandle[] = [];
  try {
    const make = async (name: string): Promise<DataWriter> => {
      const handle = await open(join(place.path, name), "wx", 0o600);
      handles.push(handle);
      return new DataWriter(handle);
    };
    const data = await make(DATA_FILE);
    const list = await make(LIST_FILE);
    let metadataBytes = 0;
    for (const file of files) {
      data.align(BLOCK_SIZE);
      const start = data.position;
      if (file.kind === "file" && file.target === undefined) await copyContent(root, file, data, turns);
      const line = Buffer.from(`${encodeEntry(entryOf(root, file, start))}\n`);
      metadataBytes += line.length;
      if (metadataBytes > limits.metadataBytes) {
        throw new ImageError(`${root}: names and attributes take more than ${String(limits.metadataBytes)} bytes`);
      }
      list.append(line);
      if (data.isFull || list.isFull) {
        await data.flush();
        await list.flush();
        onBytes(data.position);
      }
      if (turns.isOver) await turns.next();
    }
    data.align(BLOCK_SIZE);
    await data.finish();
    endList(list, files.length, data.position);
    await list.finish();
    for (const handle of handles.splice(0)) await handle.close();
    place.become(cache.layer(layer));
  } catch (error) {
    throw cacheError(cache.folder, error);
  } finally {
    for (const handle of handles) await handle.close();
    place.close();
  }
}

function entryOf(root: string, file: FoundFile, offset: number): LayerEntry {
  const { path, kind, target, mode, uid, gid, mtime, mtimeNs, size, linkTarget, major, minor } = file;
  if (target !== undefined) return { is: "link", path, target };
  const xattrs = keptXattrs(readXattrs(file.bytesOf(root)));
  return {
    is: kind,
    path,
    attributes: { mode, uid, gid, mtime, mtimeNs, xattrs },
    size: kind === "file" ? size : 0,
    offset: kind === "file" && size > 0 ? offset : 0,
    target: linkTarget,
    major,
    minor,
  };
}

async function copyContent(root: string, file: FoundFile, data: DataWriter, turns: Turns): Promise<void> {
  if (file.size === 0) return;
  const fd = openFound(root, file);
  try {
    const { ino, size } = fstatSync(fd);
    if (ino !== file.inode || size !== file.size) throw changed(root, file);
    for (let done = 0; done < file.size;) {
      const piece = pieceAt(fd, done, file.size);
      data.skip(piece.start - done);
      for (done = piece.start; done < piece.end;) {
        const chunk = Buffer.allocUnsafeSlow(Math.min(READ_BYTES, piece.end - done));
        const count = readSync(fd, chunk, 0, chunk.length, done);
        if (count === 0) throw changed(root, file);
        data.append(chunk.subarray(0, count));
        done += count;
        if (data.isFull) await data.flush();
        if (turns.isOver) await turns.next();
      }
    }
  } finally {
    closeSync(fd);
  }
}

/** The next piece of a file that is no hole. */
function pieceAt(fd: number, from: number, size: number): { readonly start: number; readonly end: number } {
  // Looking for holes costs two calls.
  if (size <= READ_BYTES) return { start: from, end: size };
  try {
    const { start, end } = nextData(fd, from) ?? { start: size, end: size };
    return { start: Math.min(start, size), end: Math.min(end, size) };
  } catch {
    // A file system that cannot tell.
    return { start: from, end: size };
  }
}

function openFound(root: string, file: FoundFile): number {
  try {
    return openSync(file.bytesOf(root), READ_FLAGS);
  } catch (error) {
    const { code = "" } = error as NodeJS.ErrnoException;
    throw new ImageError(`${join(root, showBytes(file.path))}: ${errnoText(code)}`, {
      cause: error,
      cure: code === "EACCES" || code === "EPERM" ? "run vmlet as a user who may read all of the folder" : undefined,
    });
  }
}

function changed(root: string, { path }: FoundFile): ImageError {
  return new ImageError(`${root}: ${showBytes(path)} was changed while it was read`, {
    cure: "try again once nobody writes to the folder",
  });
}
