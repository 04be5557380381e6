// A terminal of a test's own, by script(1): commands run in it one after the other, in a shell that outlives them.
import { execFileSync, spawn, type ChildProcess } from "node:child_process";
import { findProgram } from "../../vmm/host/programs.js";

const LIMIT_MS = 60_000;

/** Why there can be none here; undefined if there can. */
export function whyNoTerminal(): string | undefined {
  return findProgram("script") === undefined ? "script is not installed (Debian: bsdutils)" : undefined;
}

export class PseudoTerminal {
  readonly #script: ChildProcess;
  readonly #device: string;
  #text = "";
  #hears: () => void = () => undefined;

  private constructor(script: ChildProcess, text: string) {
    this.#script = script;
    this.#device = /^(\/dev\S+)/.exec(text)?.[1] ?? "";
    script.stdout?.on("data", (bytes: Buffer) => {
      this.#text += bytes.toString("latin1");
      this.#hears();
    });
  }

  static async open(rows: number, columns: number): Promise<PseudoTerminal> {
    const shell = `stty rows ${String(rows)} cols ${String(columns)} -echo; tty; while read -r line; do eval "$line"; done`;
    const script = spawn("script", ["-qec", shell, "/dev/null"], { env: { ...process.env, SHELL: "/bin/sh" } });
    const first = await new Promise<string>((resolve, reject) => {
      script.once("error", reject);
      script.stdout.once("data", (bytes: Buffer) => {
        resolve(bytes.toString("latin1"));
      });
    });
    return new PseudoTerminal(script, first);
  }

  type(text: string): void {
    this.#script.stdin?.write(text, "latin1");
  }

  /** Starts a command; "pid N" tells its process, "ended N" its exit code. */
  run(words: readonly string[]): void {
    const quoted = words.map((word) => `'${word.replaceAll("'", "'\\''")}'`).join(" ");
    this.type(`sh -c 'echo "pid $$"; exec "$@"' sh ${quoted}; echo "ended $?"\n`);
  }

  /** What has been shown up to here, and since the last call. */
  async until(pattern: RegExp): Promise<string> {
    const end = performance.now() + LIMIT_MS;
    for (;;) {
      const match = pattern.exec(this.#text);
      if (match !== null) {
        const shown = this.#text.slice(0, match.index + match[0].length);
        this.#text = this.#text.slice(shown.length);
        return shown;
      }
      if (performance.now() > end) throw new Error(`no ${String(pattern)} in ${JSON.stringify(this.#text)}`);
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, 100);
        this.#hears = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
  }

  /** Process of the command that was run. */
  async pid(): Promise<number> {
    return Number(/(\d+)\r?\n$/.exec(await this.until(/pid \d+\r?\n/))?.[1]);
  }

  async ended(): Promise<number> {
    return Number(/(\d+)\r?\n$/.exec(await this.until(/ended \d+\r?\n/))?.[1]);
  }

  resize(rows: number, columns: number): void {
    this.#stty("rows", String(rows), "cols", String(columns));
  }

  /** All of its modes, as stty has them. */
  modes(): string {
    return this.#stty("-g");
  }

  /** As a window that is closed. */
  close(): void {
    this.#script.kill("SIGKILL");
  }

  #stty(...words: string[]): string {
    return execFileSync("stty", ["-F", this.#device, ...words], { encoding: "utf8" });
  }
}
