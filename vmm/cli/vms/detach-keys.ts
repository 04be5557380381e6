// The keys that leave a program's terminal and let it run, as Docker writes them: ctrl-p,ctrl-q.
import { UsageError } from "../usage-error.js";

const USUAL = "ctrl-p,ctrl-q";
const CTRL = 0x1f;

export class DetachKeys {
  readonly #keys: readonly number[];
  /** How many of them have been typed so far. */
  #typed = 0;

  /** Throws UsageError. */
  constructor(text: string = USUAL) {
    this.#keys = text.split(",").map((word) => {
      const [, control] = /^ctrl-([a-zA-Z@[\\\]^_])$/.exec(word) ?? [];
      if (control !== undefined) return control.toUpperCase().charCodeAt(0) & CTRL;
      if (word.length === 1) return word.charCodeAt(0);
      throw new UsageError(
        `--detach-keys ${JSON.stringify(text)}: ${JSON.stringify(word)} is no key; keys are a or ctrl-a, with commas between them`,
      );
    });
  }

  /** What is left for the program; keys that may still become the sequence are held back. */
  take(bytes: Uint8Array): { readonly passed: Uint8Array; readonly isDetached: boolean } {
    const passed: number[] = [];
    for (const byte of bytes) {
      if (byte === this.#keys[this.#typed]) {
        if (++this.#typed === this.#keys.length) {
          this.#typed = 0;
          return { passed: Uint8Array.from(passed), isDetached: true };
        }
        continue;
      }
      // The end of what has been typed may be the beginning of the sequence, too.
      const typed = [...this.#keys.slice(0, this.#typed), byte];
      let from = 1;
      while (!typed.slice(from).every((key, at) => key === this.#keys[at])) from++;
      passed.push(...typed.slice(0, from));
      this.#typed = typed.length - from;
    }
    return { passed: Uint8Array.from(passed), isDetached: false };
  }
}
