// From what a caller gives as input to what the guest reads, at the guest's pace.
import { bytesOf } from "./guest-bytes.js";
import type { InputTarget } from "./input-stream.js";

/** Text, bytes, or a stream of them, such as a Readable. */
export type CommandInput = string | Uint8Array | AsyncIterable<string | Uint8Array> | Iterable<string | Uint8Array>;

export class InputPump {
  readonly #target: InputTarget;
  #isStopped = false;
  #wake: (() => void) | undefined;

  /** `onError`: the caller's stream has failed. */
  constructor(input: CommandInput, target: InputTarget, onError: (error: unknown) => void) {
    this.#target = target;
    this.#pump(input).catch((error: unknown) => {
      if (!this.#isStopped) onError(error);
    });
  }

  /** The target takes more. */
  resume(): void {
    const wake = this.#wake;
    this.#wake = undefined;
    wake?.();
  }

  /** Nothing is read and written any more; a stream that is waited for is left alone. */
  stop(): void {
    this.#isStopped = true;
    this.resume();
  }

  async #pump(input: CommandInput): Promise<void> {
    const chunks = typeof input === "string" || input instanceof Uint8Array ? [input] : input;
    for await (const chunk of chunks) {
      let rest: Uint8Array = bytesOf(chunk);
      while (rest.length > 0 && !this.#isStopped) {
        rest = rest.subarray(this.#target.write(rest));
        if (rest.length > 0) await new Promise<void>((resolve) => (this.#wake = resolve));
      }
      if (this.#isStopped) return;
    }
    this.#target.end();
  }
}
