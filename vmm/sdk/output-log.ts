// What a VM's own program has written, for `vmlet logs`: records of a line of JSON and that many bytes, so that every byte
// stays what it was. Bounded: two files, of which the older goes when the newer is full.
import { closeSync, existsSync, openSync, readSync, renameSync, writeSync } from "node:fs";

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

export function olderLog(path: string): string {
  return `${path}.1`;
}

export class OutputLog {
  readonly #path: string;
  readonly #maxBytes: number;
  #fd: number;
  #size = 0;

  constructor(path: string, maxBytes = MAX_FILE_BYTES) {
    this.#path = path;
    this.#maxBytes = maxBytes;
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
    closeSync(this.#fd);
    renameSync(this.#path, olderLog(this.#path));
    this.#fd = openSync(this.#path, "w", PRIVATE_FILE);
    this.#size = 0;
  }
}

/** Reads what there is, and later what has come since. */
export class LogReader {
  readonly #path: string;
  #fd: number | undefined;
  #rest = Buffer.alloc(0);

  /** Of one file; a log that is not there yet has no records. */
  constructor(path: string) {
    this.#path = path;
  }

  *read(): Generator<LogRecord> {
    if (this.#fd === undefined && !existsSync(this.#path)) return;
    this.#fd ??= openSync(this.#path, "r");
    const chunk = Buffer.alloc(64 * 1024);
    for (let count; (count = readSync(this.#fd, chunk)) > 0;) {
      this.#rest = Buffer.concat([this.#rest, chunk.subarray(0, count)]);
      for (let record; (record = this.#take()) !== undefined;) yield record;
    }
  }

  /** All that is there now. */
  skip(): void {
    const records = this.read();
    while (records.next().done !== true);
  }

  close(): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
    this.#fd = undefined;
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

/** All records of a log that is not written any more, or as far as it is. */
export function* readLog(path: string): Generator<LogRecord> {
  for (const file of [olderLog(path), path]) {
    const reader = new LogReader(file);
    try {
      yield* reader.read();
    } finally {
      reader.close();
    }
  }
}
