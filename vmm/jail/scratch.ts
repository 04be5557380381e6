// Memory for what the kernel reads while a process is sealed: one mapping for all of it, since a start waits for each.
import { mmapAnonymous, munmap, viewMemory } from "../sys/memory.js";

/** Far more than all filters have; only what is used costs memory. `bytes` */
const SIZE = 256 * 1024;

export class Scratch {
  readonly #start = mmapAnonymous(SIZE);
  // SAFETY: all of the mapping, which nobody uses after `remove`.
  readonly #memory = viewMemory(this.#start, SIZE);
  #used = 0;

  /** Zeroed room at a multiple of 8. `at`: its offset in `memory`. */
  room(length: number): { readonly address: number; readonly at: number } {
    const at = this.#used;
    if (at + length > SIZE) throw new Error(`The seal wants ${String(at + length)} bytes at once`);
    this.#used = Math.ceil((at + length) / 8) * 8;
    return { address: this.#start + at, at };
  }

  get memory(): ArrayBuffer {
    return this.#memory;
  }

  /** The address of a copy. */
  place(bytes: Uint8Array): number {
    const { address, at } = this.room(bytes.length);
    new Uint8Array(this.#memory, at, bytes.length).set(bytes);
    return address;
  }

  /** A copy with a NUL behind it. */
  text(text: string): number {
    return this.place(Buffer.from(`${text}\0`, "latin1"));
  }

  remove(): void {
    munmap(this.#start, SIZE);
  }
}
