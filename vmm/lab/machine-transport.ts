// The agent's protocol over the emulated machine's port. What comes before the agent's first word is for people.
import type { AgentTransport } from "../agent/transport.js";
import type { LabMachine } from "./emulator.js";

/** Of what comes before the agent, `characters`. */
const MAX_TEXT = 65_536;
/** guest/lab/init-intel. */
const PROGRESS = /^lab: (.+)\n/m;

export interface TransportHooks {
  /** How far the start is, in words. */
  readonly onProgress?: ((text: string) => void) | undefined;
  /** The emulated host has said something. */
  readonly onLife?: (() => void) | undefined;
}

export class MachineTransport implements AgentTransport {
  onBytes: AgentTransport["onBytes"];
  onDrain: AgentTransport["onDrain"];
  onClose: AgentTransport["onClose"];
  readonly #machine: Pick<LabMachine, "input" | "output">;
  readonly #hooks: TransportHooks;
  /** What may be progress; undefined once the agent has spoken. */
  #text: string | undefined = "";
  #isClosed = false;
  #isCorked = false;

  constructor(machine: Pick<LabMachine, "input" | "output" | "ended">, hooks: TransportHooks = {}) {
    this.#machine = machine;
    this.#hooks = hooks;
    machine.output.on("data", (bytes: Buffer) => {
      hooks.onLife?.();
      if (this.#text !== undefined) this.#readProgress(bytes);
      if (!this.#isClosed) this.onBytes?.(bytes);
    });
    // A broken connection shows as the end of the emulator.
    machine.output.on("error", () => undefined);
    machine.input.on("error", () => undefined);
    machine.input.on("drain", () => {
      if (!this.#isClosed) this.onDrain?.();
    });
    void machine.ended.then(() => {
      if (!this.#isClosed) this.onClose?.();
    });
  }

  /** The agent has spoken: no more words are looked for. */
  begun(): void {
    this.#text = undefined;
  }

  write(bytes: Uint8Array): boolean {
    const { input } = this.#machine;
    if (this.#isClosed || !input.writable) return true;
    if (!this.#isCorked) {
      // The frames of one turn go in one system call.
      this.#isCorked = true;
      input.cork();
      process.nextTick(() => {
        this.#isCorked = false;
        input.uncork();
      });
    }
    return input.write(Buffer.from(bytes));
  }

  close(): void {
    this.#isClosed = true;
  }

  #readProgress(bytes: Buffer): void {
    this.#text = ((this.#text ?? "") + bytes.toString("latin1")).slice(-MAX_TEXT);
    for (let match; (match = PROGRESS.exec(this.#text)) !== null;) {
      this.#text = this.#text.slice(match.index + match[0].length);
      this.#hooks.onProgress?.(match[1] ?? "");
    }
  }
}
