// What takes longer than a moment before a VM's program runs, on standard error.
import { Progress } from "../../host/progress.js";

export class WorkProgress {
  readonly #isQuiet: boolean;
  #line: Progress | undefined;

  constructor(isQuiet: boolean) {
    this.#isQuiet = isQuiet;
  }

  show(text: string): void {
    if (this.#isQuiet) return;
    if (this.#line === undefined) this.#line = new Progress(text);
    else this.#line.update(text);
  }

  /** There is something else to see. */
  done(): void {
    this.#line?.done();
    this.#line = undefined;
  }
}
