// Layers are tar archives as they are, or packed by gzip or zstd; the first bytes tell. Node has zstd from 22.15 on, but
// only for streams of one frame, and tools write many: the program of that name is used where it is there.
import { spawn } from "node:child_process";
import { Readable } from "node:stream";
import * as zlib from "node:zlib";
import { ImageError } from "../errors.js";
import { findProgram } from "../host/programs.js";

export type Compression = "none" | "gzip" | "zstd";

/** `bytes` that come out in one piece. */
const CHUNK = 256 * 1024;
const MAX_COMPLAINT = 500;
/** `bytes` that the first look needs. */
export const MAGIC_BYTES = 6;

/** By its first bytes. Throws ImageError for what is packed in a way that no layer is. */
export function compressionOf(start: Buffer): Compression {
  const hex = start.toString("hex", 0, MAGIC_BYTES);
  if (hex.startsWith("1f8b")) return "gzip";
  // A frame, or one to be skipped, as some put an index into.
  if (hex.startsWith("28b52ffd") || /^5.2a4d18/.test(hex)) return "zstd";
  if (hex.startsWith("fd377a585a00")) throw packed("xz");
  if (hex.startsWith("425a68")) throw packed("bzip2");
  return "none";
}

function packed(program: string): ImageError {
  return new ImageError(`An archive packed by ${program}, which no image is`, {
    cure: `unpack it first: ${program} -d FILE`,
  });
}

/** What `source` unpacks to. Throws ImageError where it is damaged. */
export async function* decompress(source: AsyncIterable<Buffer>, how: Compression): AsyncGenerator<Buffer> {
  if (how === "none") yield* source;
  else if (how === "gzip") yield* through(source, zlib.createGunzip({ chunkSize: CHUNK }), how);
  else {
    const program = findProgram("zstd");
    if (program !== undefined) yield* zstdProgram(program, source);
    else yield* ownZstd(source);
  }
}

/** Node's own, which takes one frame and no more, and says nothing of what it has left. */
async function* ownZstd(source: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  if (!("createZstdDecompress" in zlib)) throw noZstd("this Node cannot unpack it");
  const create = zlib.createZstdDecompress as (options: object) => NodeJS.ReadWriteStream & { bytesWritten: number };
  const unpack = create({ chunkSize: CHUNK });
  let given = 0;
  async function* counted(): AsyncGenerator<Buffer> {
    for await (const chunk of source) {
      given += chunk.length;
      yield chunk;
    }
  }
  yield* through(counted(), unpack, "zstd");
  if (unpack.bytesWritten < given) throw noZstd("this Node unpacks only the first of its frames");
}

function noZstd(why: string): ImageError {
  return new ImageError(`A layer is packed by zstd, and ${why}; there is no program zstd`, {
    cure: "install it (Debian: apt-get install zstd)",
  });
}

async function* through(
  source: AsyncIterable<Buffer>,
  unpack: NodeJS.ReadWriteStream,
  how: Compression,
): AsyncGenerator<Buffer> {
  const input = Readable.from(source, { objectMode: false });
  let inputError: Error | undefined;
  // The reader's errors, such as a wrong digest, are told as they are.
  input.once("error", (error) => {
    inputError = error;
    (unpack as unknown as Readable).destroy(error);
  });
  input.pipe(unpack);
  try {
    for await (const chunk of unpack) yield chunk as unknown as Buffer;
    if (inputError !== undefined) throw inputError;
  } catch (error) {
    if (inputError !== undefined) throw inputError;
    const { code = "" } = error as NodeJS.ErrnoException;
    if (!/^(Z_|ZSTD_|ERR_ZSTD)/i.test(code)) throw error;
    throw new ImageError(`A layer's ${how} stream is damaged or cut off`, { cause: error });
  } finally {
    input.destroy();
    (unpack as unknown as Readable).destroy();
  }
}

async function* zstdProgram(program: string, source: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  const child = spawn(program, ["-dcq"], { stdio: ["pipe", "pipe", "pipe"] });
  let complaint = "";
  child.stderr.on("data", (bytes: Buffer) => {
    complaint = (complaint + bytes.toString("utf8")).slice(0, MAX_COMPLAINT);
  });
  const ended = new Promise<number | null>((resolve) => {
    child.once("error", () => resolve(-1));
    child.once("close", resolve);
  });
  const input = Readable.from(source, { objectMode: false });
  let inputError: Error | undefined;
  input.once("error", (error) => {
    inputError = error;
    child.kill();
  });
  // It may end before it has read everything.
  child.stdin.on("error", () => undefined);
  input.pipe(child.stdin);
  try {
    for await (const chunk of child.stdout) yield chunk as Buffer;
    const code = await ended;
    if (inputError !== undefined) throw inputError;
    if (code !== 0) {
      throw new ImageError("A layer's zstd stream is damaged or cut off", { cause: new Error(complaint.trim()) });
    }
  } finally {
    input.destroy();
    child.kill();
  }
}
