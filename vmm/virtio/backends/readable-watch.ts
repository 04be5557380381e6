// Watches a file descriptor now and then. It keeps the poll handle: a collected handle never calls back,
// and making one is a system call.
import { pollReadable, type PollHandle } from "../../sys/events.js";
import type { Guard } from "../guard.js";

/** Tells when a file descriptor is readable, by calling back in turns of the event loop. */
export type PollFunction = (fd: number, callback: () => void) => PollHandle;

export class ReadableWatch {
  readonly #fd: number;
  readonly #guard: Guard;
  readonly #poll: PollFunction;
  #handle: PollHandle | undefined;
  #isWatching = false;

  constructor(fd: number, guard: Guard, poll: PollFunction = pollReadable) {
    this.#fd = fd;
    this.#guard = guard;
    this.#poll = poll;
  }

  start(ready: () => void): void {
    if (this.#isWatching) return;
    this.#isWatching = true;
    const guarded = (): void => {
      this.#guard(ready);
    };
    if (this.#handle === undefined) this.#handle = this.#poll(this.#fd, guarded);
    else this.#handle.start(guarded);
  }

  stop(): void {
    if (!this.#isWatching) return;
    this.#isWatching = false;
    this.#handle?.stop();
  }

  /** Before the descriptor is closed. */
  close(): void {
    this.stop();
    this.#handle?.close();
    this.#handle = undefined;
  }
}
