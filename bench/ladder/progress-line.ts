// One line on standard error that says what is being done; without a terminal, one a stage.
import { sayRaw } from "../../vmm/host/say.js";

export class ProgressLine {
  readonly #started = performance.now();
  readonly #isTerminal = process.stderr.isTTY;
  #stage = "";

  show(text: string): void {
    const seconds = Math.round((performance.now() - this.#started) / 1000);
    const clock = `${String(Math.floor(seconds / 60))}:${String(seconds % 60).padStart(2, "0")}`;
    if (this.#isTerminal) {
      sayRaw(`\r${clock}  ${text}\x1b[K`);
      return;
    }
    const [stage = ""] = text.split(":");
    if (stage !== this.#stage) sayRaw(`${clock}  ${stage} …\n`);
    this.#stage = stage;
  }

  clear(): void {
    if (this.#isTerminal) sayRaw("\r\x1b[K");
  }
}
