// A file that is written while a guest runs. Nothing about it may hold the guest up or end it: a disk that
// is full, a FIFO that nobody reads, a server that does not answer. What cannot be written is lost, said
// once and counted; the next piece is tried again.
import { close, closeSync, constants, fstatSync, ftruncateSync, openSync, write } from "node:fs";
import { errnoText } from "../host/errno-text.js";
import { lockByteExclusive } from "../sys/locks.js";

/** O_NONBLOCK: a FIFO without a reader is an error instead of a wait; O_NOCTTY: a terminal does not become ours. */
const FLAGS = constants.O_WRONLY | constants.O_CREAT | constants.O_NONBLOCK | constants.O_NOCTTY;
const MODE = 0o666;
/** The byte that stands for "this file is being written". */
export const WRITER_LOCK_BYTE = 0;
/** How long the last piece may take, `ms`: the guest has ended, and the user waits. */
const LAST_MS = 2000;

export interface OutputFileEvents {
  /** The first failure, in words. */
  readonly failed: (why: string) => void;
}

export class OutputFile {
  readonly #path: string;
  readonly #failed: (why: string) => void;
  #fd: number | undefined;
  #hasOpened = false;
  #hasFailed = false;
  #isWriting = false;
  /** The rest of a piece whose beginning is in the file already. */
  #rest: Uint8Array = new Uint8Array();
  #lost = 0;
  #onIdle: (() => void) | undefined;

  constructor(path: string, { failed }: OutputFileEvents) {
    this.#path = path;
    this.#failed = failed;
    this.#open();
  }

  /** Pieces that are not in the file. */
  get lost(): number {
    return this.#lost;
  }

  /** Writes a piece, all or nothing of it; drops it if the one before is still being written. */
  write(piece: string | Uint8Array): void {
    if (this.#isWriting || (this.#fd === undefined && !this.#open())) {
      this.#lost++;
      return;
    }
    this.#put(Buffer.concat([this.#rest, Buffer.from(piece)]), this.#rest.length);
  }

  /** Writes the last piece, and resolves when that is done or takes too long. */
  async close(last: string | Uint8Array): Promise<void> {
    await this.#idle();
    this.write(last);
    await this.#idle();
    if (this.#rest.length > 0 || this.#isWriting) this.#lost++;
    // A write that hangs ends with the process.
    if (this.#fd !== undefined && !this.#isWriting) close(this.#fd, () => undefined);
  }

  /** Waits for the write that is under way, in a limited time. */
  async #idle(): Promise<void> {
    if (!this.#isWriting) return;
    const idle = new Promise<void>((resolve) => (this.#onIdle = resolve));
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<void>((resolve) => (timer = setTimeout(resolve, LAST_MS)));
    await Promise.race([idle, late]);
    clearTimeout(timer);
  }

  #open(): boolean {
    let fd: number | undefined;
    try {
      fd = openSync(this.#path, FLAGS, MODE);
      const stat = fstatSync(fd);
      if (stat.isBlockDevice()) throw new Error("a block device");
      if (stat.isFile()) {
        if (!lockByteExclusive(fd, WRITER_LOCK_BYTE)) throw new Error("another vmlet writes it");
        if (!this.#hasOpened) ftruncateSync(fd);
      }
    } catch (error) {
      if (fd !== undefined) closeSync(fd);
      this.#complain(error);
      return false;
    }
    this.#fd = fd;
    this.#hasOpened = true;
    return true;
  }

  /** `old`: how many of the bytes belong to the piece before. */
  #put(bytes: Uint8Array, old: number, done = 0): void {
    const fd = this.#fd;
    if (fd === undefined) return;
    this.#isWriting = true;
    write(fd, bytes, done, bytes.length - done, null, (error, count) => {
      if (error === null && done + count < bytes.length) {
        this.#put(bytes, old, done + count);
        return;
      }
      this.#isWriting = false;
      this.#rest = new Uint8Array();
      if (error !== null) this.#fail(error, bytes, old, done);
      this.#onIdle?.();
    });
  }

  #fail(error: NodeJS.ErrnoException, bytes: Uint8Array, old: number, done: number): void {
    if (error.code === "EPIPE") {
      // The reader of a FIFO has gone: the next one begins with a whole piece.
      if (this.#fd !== undefined) closeSync(this.#fd);
      this.#fd = undefined;
      this.#lost++;
    } else if (done > old) {
      this.#rest = bytes.subarray(done);
    } else {
      this.#rest = bytes.subarray(done, old);
      this.#lost++;
    }
    this.#complain(error);
  }

  #complain(error: unknown): void {
    if (this.#hasFailed) return;
    this.#hasFailed = true;
    const { code, message } = error as NodeJS.ErrnoException;
    this.#failed(code === undefined ? message : code === "EAGAIN" ? "its reader does not keep up" : errnoText(code));
  }
}
