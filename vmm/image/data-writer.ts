// Writes a file from front to end in large pieces; what is handed in is not copied. Zeroes of any length cost nothing.

/** A file that is open for writing, as Node has it. */
export interface WritableFile {
  writev(pieces: Buffer[], position: number): Promise<{ readonly bytesWritten: number }>;
  write(bytes: Buffer, offset: number, length: number, position: number): Promise<{ readonly bytesWritten: number }>;
  truncate(length: number): Promise<void>;
}

/** `bytes` that are gathered before it is worth a call. */
const ENOUGH = 1024 * 1024;
const ZEROES = Buffer.alloc(4096);

export interface Run {
  readonly position: number;
  readonly pieces: Buffer[];
  length: number;
}

export class DataWriter {
  readonly #file: WritableFile;
  #runs: Run[] = [];
  #position = 0;
  #waiting = 0;

  constructor(file: WritableFile) {
    this.#file = file;
  }

  /** `bytes` from the start of the file. */
  get position(): number {
    return this.#position;
  }

  get isFull(): boolean {
    return this.#waiting >= ENOUGH;
  }

  /** The bytes must stay as they are until they are flushed. */
  append(bytes: Buffer): void {
    if (bytes.length === 0) return;
    let run = this.#runs[this.#runs.length - 1];
    if (run === undefined || run.position + run.length !== this.#position) {
      run = { position: this.#position, pieces: [], length: 0 };
      this.#runs.push(run);
    }
    run.pieces.push(bytes);
    run.length += bytes.length;
    this.#position += bytes.length;
    this.#waiting += bytes.length;
  }

  /** So many zeroes. */
  skip(length: number): void {
    if (length < ZEROES.length) this.append(ZEROES.subarray(0, length));
    else this.#position += length;
  }

  /** Zeroes up to the next multiple. */
  align(multiple: number): void {
    this.skip((multiple - (this.#position % multiple)) % multiple);
  }

  /** What is gathered: where it goes, and the bytes. */
  take(): readonly Run[] {
    const runs = this.#runs;
    this.#runs = [];
    this.#waiting = 0;
    return runs;
  }

  async flush(): Promise<void> {
    for (const { position, pieces, length } of this.take()) {
      const { bytesWritten } = await this.#file.writev(pieces, position);
      // Cut short by a full disk, mostly: the next call says so.
      if (bytesWritten < length)
        await this.#rest(Buffer.concat(pieces).subarray(bytesWritten), position + bytesWritten);
    }
  }

  /** Writes what is left, and makes the file as long as all that was said. */
  async finish(): Promise<void> {
    await this.flush();
    await this.#file.truncate(this.#position);
  }

  async #rest(bytes: Buffer, position: number): Promise<void> {
    for (let done = 0; done < bytes.length;) {
      const { bytesWritten } = await this.#file.write(bytes, done, bytes.length - done, position + done);
      done += bytesWritten;
    }
  }
}
