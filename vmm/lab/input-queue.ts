// Standard input on its way to a command: what has no room yet waits here, and whoever brings it is told to wait.

/** The command's end of it; it calls `resume` once it takes more. */
export interface InputTarget {
  /** How many of the bytes it has taken. */
  write(bytes: Uint8Array): number;
  end(): void;
}

export class InputQueue {
  #target: InputTarget | undefined;
  #chunks: Uint8Array[] = [];
  #hasEnded = false;
  #drained: (() => void) | undefined;

  /** From here on it has somewhere to go. */
  connect(target: InputTarget): void {
    this.#target = target;
    this.resume();
  }

  /** False if some of it has to wait; `onceDrained` tells when all of it has been sent. */
  push(bytes: Uint8Array): boolean {
    if (bytes.length > 0) this.#chunks.push(bytes);
    this.resume();
    return this.#chunks.length === 0;
  }

  /** After all that was pushed. */
  end(): void {
    this.#hasEnded = true;
    this.resume();
  }

  onceDrained(callback: () => void): void {
    this.#drained = callback;
  }

  resume(): void {
    if (this.#target === undefined) return;
    for (let first; (first = this.#chunks[0]) !== undefined;) {
      const taken = this.#target.write(first);
      if (taken < first.length) {
        this.#chunks[0] = first.subarray(taken);
        return;
      }
      this.#chunks.shift();
    }
    if (this.#hasEnded) {
      this.#hasEnded = false;
      this.#target.end();
    }
    this.#tellDrained();
  }

  /** The command has ended: what it has not read is dropped. */
  clear(): void {
    this.#chunks = [];
    this.#target = { write: (bytes) => bytes.length, end: () => undefined };
    this.#tellDrained();
  }

  #tellDrained(): void {
    const callback = this.#drained;
    this.#drained = undefined;
    callback?.();
  }
}
