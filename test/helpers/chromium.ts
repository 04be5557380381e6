// A headless Chromium, driven over its DevTools pipe (NUL-ended JSON on descriptors 3 and 4): no
// package, no port.
import { spawn, type ChildProcess } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Readable, Writable } from "node:stream";

const READ_BY_CHROMIUM = 3;
const WRITTEN_BY_CHROMIUM = 4;

interface Message {
  readonly id?: number;
  readonly method?: string;
  readonly params?: Readonly<Record<string, unknown>>;
  readonly result?: Readonly<Record<string, unknown>>;
  readonly error?: { readonly message: string };
}

export interface Media {
  readonly kind: "screen" | "print";
  readonly scheme: "light" | "dark";
  /** CSS pixels. */
  readonly width: number;
}

export class Chromium {
  readonly #child: ChildProcess;
  readonly #folder: string;
  readonly #commands: Writable;
  readonly #waiting = new Map<number, (message: Message) => void>();
  readonly #events: Message[] = [];
  #session: string | undefined;
  #serial = 0;

  constructor(path: string) {
    this.#folder = mkdtempSync(join(tmpdir(), "vmlet-chromium-"));
    const flags = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe"];
    this.#child = spawn(path, [...flags, `--user-data-dir=${this.#folder}`, "about:blank"], {
      stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"],
      // Its helpers are of the same process group, and end with it.
      detached: true,
    });
    this.#commands = this.#child.stdio[READ_BY_CHROMIUM] as Writable;
    let text = "";
    (this.#child.stdio[WRITTEN_BY_CHROMIUM] as Readable).setEncoding("utf8").on("data", (chunk: string) => {
      const parts = `${text}${chunk}`.split("\0");
      text = parts.pop() ?? "";
      for (const part of parts) this.#receive(JSON.parse(part) as Message);
    });
  }

  /** Opens a page; what it says on its console, and what it cannot load, is in `complaints`. */
  async open(url: string): Promise<void> {
    const { targetId } = await this.#send("Target.createTarget", { url: "about:blank" });
    const { sessionId } = await this.#send("Target.attachToTarget", { targetId, flatten: true });
    this.#session = String(sessionId);
    for (const domain of ["Page", "Runtime", "Log", "Network"]) await this.#send(`${domain}.enable`);
    const loaded = this.#event("Page.loadEventFired");
    await this.#send("Page.navigate", { url });
    await loaded;
  }

  get complaints(): string[] {
    const methods = ["Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded", "Network.loadingFailed"];
    return this.#events.filter(({ method = "" }) => methods.includes(method)).map((event) => JSON.stringify(event));
  }

  async show({ kind, scheme, width }: Media): Promise<void> {
    const features = [{ name: "prefers-color-scheme", value: scheme }];
    await this.#send("Emulation.setEmulatedMedia", { media: kind, features });
    await this.#send("Emulation.setDeviceMetricsOverride", { width, height: 900, deviceScaleFactor: 1, mobile: false });
  }

  /** Value of an expression in the page. */
  async evaluate<T>(expression: string): Promise<T> {
    const answer = await this.#send("Runtime.evaluate", { expression, returnByValue: true });
    const { result, exceptionDetails } = answer as { result: { value: T }; exceptionDetails?: unknown };
    if (exceptionDetails !== undefined) throw new Error(JSON.stringify(exceptionDetails));
    return result.value;
  }

  async close(): Promise<void> {
    const ended = new Promise((resolve) => this.#child.once("close", resolve));
    const { pid, exitCode, signalCode } = this.#child;
    if (pid !== undefined && exitCode === null && signalCode === null) {
      process.kill(-pid, "SIGKILL");
      await ended;
    }
    // A helper that has just been killed may still be writing.
    rmSync(this.#folder, { recursive: true, force: true, maxRetries: 20 });
  }

  #receive(message: Message): void {
    if (message.id === undefined) this.#events.push(message);
    else this.#waiting.get(message.id)?.(message);
    this.#onEvent(message);
  }

  #onEvent: (message: Message) => void = () => undefined;

  #event(method: string): Promise<void> {
    return new Promise((resolve) => {
      this.#onEvent = (message) => {
        if (message.method === method) resolve();
      };
    });
  }

  #send(method: string, params: object = {}): Promise<Readonly<Record<string, unknown>>> {
    const id = ++this.#serial;
    const session = this.#session === undefined ? {} : { sessionId: this.#session };
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, ({ result, error }) => {
        this.#waiting.delete(id);
        if (error === undefined) resolve(result ?? {});
        else reject(new Error(`${method}: ${error.message}`));
      });
      this.#commands.write(`${JSON.stringify({ id, method, params, ...session })}\0`);
    });
  }
}
