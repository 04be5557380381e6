// QEMU's monitor, in its machine-readable form: QMP, one JSON object a line.
import type { Duplex } from "node:stream";
import { LabError } from "../errors.js";

interface Reply {
  readonly QMP?: unknown;
  readonly return?: unknown;
  readonly error?: { readonly desc: string };
  readonly event?: string;
  readonly data?: { readonly status?: string };
}

interface Waiting {
  readonly command: string;
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: Error) => void;
}

/** Ends of a migration, in which no further event comes. */
const ENDS = ["completed", "failed", "cancelled"];

export class Monitor {
  readonly #port: Duplex;
  readonly #waiting: Waiting[] = [];
  #text = "";
  #migrated: ((status: string) => void) | undefined;
  #hasEnded = false;

  constructor(port: Duplex) {
    this.#port = port;
    port.setEncoding("utf8").on("data", (text: string) => {
      const lines = (this.#text + text).split("\n");
      this.#text = lines.pop() ?? "";
      for (const line of lines) this.#take(JSON.parse(line) as Reply);
    });
    const end = (): void => {
      this.#hasEnded = true;
      for (const { command, reject } of this.#waiting.splice(0)) reject(new LabError(`QEMU has ended in ${command}`));
      this.#migrated?.("failed");
    };
    port.on("error", end).on("close", end);
    void this.execute("qmp_capabilities").catch(() => undefined);
  }

  /** Rejects with QEMU's own words. */
  execute(command: string, values: Readonly<Record<string, unknown>> = {}): Promise<unknown> {
    if (this.#hasEnded) return Promise.reject(new LabError(`QEMU has ended before ${command}`));
    return new Promise((resolve, reject) => {
      this.#waiting.push({ command, resolve, reject });
      this.#port.write(`${JSON.stringify({ execute: command, arguments: values })}\n`);
    });
  }

  /** A command of the monitor for people: some things only that can. What it prints. */
  async executeLine(line: string): Promise<string> {
    return String(await this.execute("human-monitor-command", { "command-line": line })).trim();
  }

  /** Saves all but RAM that is a shared file, or loads it; the machine stands still then. */
  async migrate(direction: "save" | "load", uri: string): Promise<void> {
    const ended = new Promise<string>((resolve) => (this.#migrated = resolve));
    const capabilities = ["events", "x-ignore-shared"].map((capability) => ({ capability, state: true }));
    await this.execute("migrate-set-capabilities", { capabilities });
    await this.execute(direction === "save" ? "migrate" : "migrate-incoming", { uri });
    const status = await ended;
    if (status !== "completed") throw new LabError(`QEMU could not ${direction} the state: ${status}`);
  }

  #take(reply: Reply): void {
    if (reply.event === "MIGRATION" && ENDS.includes(reply.data?.status ?? "")) {
      this.#migrated?.(reply.data?.status ?? "");
    }
    if (reply.error === undefined && !("return" in reply)) return;
    const waiting = this.#waiting.shift();
    if (reply.error === undefined) waiting?.resolve(reply.return);
    else waiting?.reject(new LabError(`QEMU refuses ${waiting.command}: ${reply.error.desc}`));
  }
}
