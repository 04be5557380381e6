// A C loop that measures on demand: a line in, nanoseconds out. It stays alive between rounds,
// so that each round finds it as warm as the JavaScript next to it.
import { spawn, type ChildProcess } from "node:child_process";
import { createInterface, type Interface } from "node:readline";

export class LineServer {
  readonly #child: ChildProcess;
  readonly #answers: AsyncIterator<string, undefined>;
  readonly #lines: Interface;
  readonly #name: string;

  constructor(program: string, argv: readonly string[] = []) {
    const child = spawn(program, argv, { stdio: ["pipe", "pipe", "inherit"] });
    this.#child = child;
    this.#name = program;
    this.#lines = createInterface({ input: child.stdout });
    this.#answers = this.#lines[Symbol.asyncIterator]();
    // Its end shows as the end of its answers.
    child.stdin.on("error", () => undefined);
  }

  async ask(line: string): Promise<number> {
    this.#child.stdin?.write(`${line}\n`);
    const { done, value } = await this.#answers.next();
    if (done === true) throw new Error(`${this.#name} has ended without an answer to "${line}"`);
    const number = Number(value);
    if (!Number.isFinite(number)) throw new Error(`${this.#name} answers "${line}" with "${value}"`);
    return number;
  }

  close(): void {
    this.#lines.close();
    this.#child.stdin?.end();
  }
}
