// A VM and what it has said, for guests that answer.
import type { Machine, VmHost } from "../../vmm/index.js";

/** What a busy host may take for an answer. */
const PATIENCE_MS = 30_000;

export class Talker {
  readonly vm: Machine;
  said = "";
  #heard: () => void = () => undefined;

  constructor(make: (host: VmHost) => Machine) {
    this.vm = make({
      output: (bytes, done) => {
        this.said += Buffer.from(bytes).toString("latin1");
        this.#heard();
        done();
      },
    });
  }

  start(): void {
    void this.vm.start().catch(() => undefined);
  }

  /** Rejects if that takes too long. */
  says(condition: (said: string) => boolean): Promise<void> {
    return new Promise((resolve, reject) => {
      const late = setTimeout(() => reject(new Error(`It says ${JSON.stringify(this.said)}`)), PATIENCE_MS);
      this.#heard = () => {
        if (!condition(this.said)) return;
        clearTimeout(late);
        resolve();
      };
      this.#heard();
    });
  }

  async answers(question: string, answer: string): Promise<void> {
    const before = this.said;
    this.vm.input(Buffer.from(question));
    await this.says((said) => said === before + answer);
  }
}
