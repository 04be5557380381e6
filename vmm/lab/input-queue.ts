// Standard input on its way to the agent: one frame at a time. The next follows when the command has
// taken the last, because a serial line cannot say that there is no room.
import { MAX_PAYLOAD } from "./frames.js";

export class InputQueue {
  readonly #send: (type: string, payload?: Uint8Array) => void;
  #chunks: Uint8Array[] = [];
  #hasEnded = false;
  /** Frames that the agent has not acknowledged. */
  #underWay = 0;
  #drained: (() => void) | undefined;

  constructor(send: (type: string, payload?: Uint8Array) => void) {
    this.#send = send;
  }

  /** False if some of it has to wait; `onceDrained` tells when all of it has been sent. */
  push(bytes: Uint8Array): boolean {
    for (let at = 0; at < bytes.length; at += MAX_PAYLOAD) this.#chunks.push(bytes.subarray(at, at + MAX_PAYLOAD));
    this.#next();
    return this.#chunks.length === 0;
  }

  /** After all that was pushed. */
  end(): void {
    this.#hasEnded = true;
    this.#next();
  }

  onceDrained(callback: () => void): void {
    this.#drained = callback;
  }

  acknowledge(): void {
    this.#underWay--;
    this.#next();
  }

  /** The command has ended: drops what it has not read. The agent still acknowledges what was sent. */
  clear(): void {
    this.#chunks = [];
    this.#hasEnded = false;
    this.#tellDrained();
  }

  #next(): void {
    if (this.#underWay > 0) return;
    const chunk = this.#chunks.shift();
    if (chunk !== undefined) {
      this.#underWay++;
      this.#send("I", chunk);
    } else if (this.#hasEnded) {
      this.#hasEnded = false;
      this.#send("E");
    }
    if (this.#chunks.length === 0) this.#tellDrained();
  }

  #tellDrained(): void {
    const callback = this.#drained;
    this.#drained = undefined;
    callback?.();
  }
}
