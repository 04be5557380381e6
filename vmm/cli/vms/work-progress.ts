// What takes longer than a moment before a VM's program runs, on standard error.
import { Progress } from "../../host/progress.js";
import { canBeTemplate } from "../../sdk/guest-config.js";
import type { VmSpec } from "../../sdk/vm-spec.js";

/** Why there is a boot to be waited for. */
export function bootText(spec: VmSpec): string {
  if (spec.isInLab === true) return "the lab starts, and the guest boots in it";
  return canBeTemplate(spec)
    ? "no guest of this kind has been started yet: it boots, once"
    : "a guest with a disk that it writes or a TAP interface boots each time";
}

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
