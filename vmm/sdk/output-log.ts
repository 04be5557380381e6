// What a VM's own program has written, for `vmlet logs`: records of a line of JSON and that many bytes, so that every byte
// stays what it was. Bounded: two files, of which the older goes when the newer is full.
import { closeSync, fstatSync, openSync, readSync, renameSync, writeSync } from "node:fs";

export type LogStream = "stdout" | "stderr";

export interface LogRecord {
  readonly stream: LogStream;
  /** `ms` since 1970. */
  readonly time: number;
  readonly bytes: Buffer;
}

const PRIVATE_FILE = 0o600;
/** Of one of the two files. */
const MAX_FILE_BYTES = 16 * 1024 * 1024;
const MAX_HEAD_BYTES = 200;
const NEWLINE = 10;
const CHUNK_BYTES = 64 * 1024;

export function olderLog(path: string): string {
  return `${path}.1`;
}

export class OutputLog {
  /** Makes the file the older one, and a new one in its place, whose descriptor is the result. */
  turn: () => number;
  readonly #maxBytes: number;
  #fd: number;
  #size = 0;

  constructor(path: string, maxBytes = MAX_FILE_BYTES) {
    this.#maxBytes = maxBytes;
    this.turn = () => {
      renameSync(path, olderLog(path));
      return openSync(path, "w", PRIVATE_FILE);
    };
    this.#fd = openSync(path, "w", PRIVATE_FILE);
  }

  /** Throws as a write to a file does. */
  write(stream: LogStream, bytes: Uint8Array): void {
    const head = Buffer.from(`${JSON.stringify({ stream, time: Date.now(), bytes: bytes.length })}\n`);
    if (this.#size > 0 && this.#size + head.length + bytes.length > this.#maxBytes) this.#turn();
    for (const piece of [head, bytes]) {
      for (let at = 0; at < piece.length;) at += writeSync(this.#fd, piece, at);
      this.#size += piece.length;
    }
  }

  close(): void {
    closeSync(this.#fd);
  }

  #turn(): void {
    const full = this.#fd;
    this.#fd = this.turn();
    closeSync(full);
    this.#size = 0;
  }
}

interface LogFile {
  readonly fd: number;
  readonly inode: bigint;
}

/** Reads what there is, and later what has come since, also when the files have turned meanwhile. */
export class LogReader {
  readonly #path: string;
  /** What is read now, and what comes after it. */
  #files: LogFile[] = [];
  #rest = Buffer.alloc(0);

  /** A log that is not there yet has no records. */
  constructor(path: string) {
    this.#path = path;
  }

  *read(): Generator<LogRecord> {
    if (this.#files.length === 0) this.#files = this.#open();
    for (let isTurned = false; ;) {
      yield* this.#readFirst();
      const [file, next] = this.#files;
      if (file === undefined) return;
      if (next === undefined) {
        const others = this.#open();
        if (others.at(-1)?.inode === file.inode || others.length === 0) {
          closeAll(others);
          return;
        }
        if (!isTurned) {
          // What has come into it between its end here and its turn.
          closeAll(others);
          isTurned = true;
          continue;
        }
        const at = others.findIndex(({ inode }) => inode === file.inode);
        closeAll(others.splice(0, at + 1));
        this.#files.push(...others);
      }
      isTurned = false;
      closeAll(this.#files.splice(0, 1));
      this.#rest = Buffer.alloc(0);
    }
  }

  close(): void {
    closeAll(this.#files.splice(0));
  }

  /** The older one first. */
  #open(): LogFile[] {
    // In this order no turn comes in between unseen: the older one is this one then.
    const newer = openFile(this.#path);
    const older = openFile(olderLog(this.#path));
    if (older === undefined) return newer === undefined ? [] : [newer];
    if (newer === undefined) return [older];
    if (newer.inode !== older.inode) return [older, newer];
    closeAll([older]);
    return [newer];
  }

  *#readFirst(): Generator<LogRecord> {
    const [file] = this.#files;
    if (file === undefined) return;
    const chunk = Buffer.alloc(CHUNK_BYTES);
    for (let count; (count = readSync(file.fd, chunk)) > 0;) {
      this.#rest = Buffer.concat([this.#rest, chunk.subarray(0, count)]);
      for (let record; (record = this.#take()) !== undefined;) yield record;
    }
  }

  /** A whole record from the front of what has been read. */
  #take(): LogRecord | undefined {
    const end = this.#rest.subarray(0, MAX_HEAD_BYTES).indexOf(NEWLINE);
    if (end < 0) return undefined;
    const head = JSON.parse(this.#rest.toString("utf8", 0, end)) as { stream: LogStream; time: number; bytes: number };
    if (this.#rest.length < end + 1 + head.bytes) return undefined;
    const bytes = this.#rest.subarray(end + 1, end + 1 + head.bytes);
    this.#rest = this.#rest.subarray(end + 1 + head.bytes);
    return { stream: head.stream, time: head.time, bytes };
  }
}

function openFile(path: string): LogFile | undefined {
  let fd: number;
  try {
    fd = openSync(path, "r");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
  return { fd, inode: fstatSync(fd, { bigint: true }).ino };
}

function closeAll(files: readonly LogFile[]): void {
  for (const { fd } of files) closeSync(fd);
}
