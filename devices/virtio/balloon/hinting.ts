// Free page hints: asked to by a number, the driver hands in all pages that are free at that moment, and keeps them until
// it is told that they may be used again. virtio 1.2 §5.5.6.5, where the host would leave them out of a migration; here
// the host's memory behind them is free meanwhile.

/** VIRTIO_BALLOON_CMD_ID_STOP: nothing is asked for. VIRTIO_BALLOON_CMD_ID_DONE: the pages may be used again. */
export const HINTS_STOP = 0;
export const HINTS_DONE = 1;
const FIRST_COMMAND = 2;

export interface HintingStatus {
  /** What the driver has been told last: 0, 1, or the number of a request. */
  readonly hostCommand: number;
  /** What it has answered last; undefined before its first answer. */
  readonly guestCommand: number | undefined;
}

export class PageHinting {
  #host = HINTS_STOP;
  #guest: number | undefined;
  #last = HINTS_DONE;
  #endsItself = true;

  get status(): HintingStatus {
    return { hostCommand: this.#host, guestCommand: this.#guest };
  }

  /** Pages that come now are those that were asked for. */
  get isAnswered(): boolean {
    return this.#host >= FIRST_COMMAND && this.#guest === this.#host;
  }

  /** A new request; what the driver is to be told. `endsItself`: once all have come, they may be used again. */
  begin(endsItself: boolean): number {
    this.#endsItself = endsItself;
    this.#last = this.#last >= 0xffff_ffff ? FIRST_COMMAND : this.#last + 1;
    return (this.#host = this.#last);
  }

  /** All pages may be used again; what the driver is to be told. */
  end(): number {
    return (this.#host = HINTS_DONE);
  }

  /** The driver's answer, a number; true if all pages have come, and it wants to hear that it may use them again. */
  answer(command: number): boolean {
    const wasAnswered = this.isAnswered;
    this.#guest = command;
    return command === HINTS_STOP && wasAnswered && this.#endsItself;
  }

  /** No driver is there that would know of a request. */
  reset(): void {
    this.#host = HINTS_STOP;
    this.#guest = undefined;
  }
}
