// The agent's protocol over a socket of node:net: a Unix socket of vsock, a relay's, a serial line's.
import type { Socket } from "node:net";
import type { AgentTransport } from "./transport.js";

/** For what was written before `close`, `ms`. */
const LINGER_MS = 1000;

export class SocketTransport implements AgentTransport {
  onBytes: AgentTransport["onBytes"];
  onDrain: AgentTransport["onDrain"];
  onClose: AgentTransport["onClose"];
  readonly #socket: Socket;
  #isCorked = false;

  /** Takes the socket over. `first`: what has been read of it already. */
  constructor(socket: Socket, first?: Uint8Array) {
    this.#socket = socket;
    if (first !== undefined && first.length > 0) socket.unshift(first);
    let cause: unknown;
    socket.on("data", (bytes: Buffer) => this.onBytes?.(bytes));
    socket.on("drain", () => this.onDrain?.());
    socket.on("error", (error) => (cause = error));
    // Half a connection is none: the protocol needs both ways.
    socket.on("end", () => socket.destroy());
    socket.on("close", () => this.onClose?.(cause));
  }

  /** Waits for the guest no longer than it must: the socket alone does not keep the process alive. */
  unref(): this {
    this.#socket.unref();
    return this;
  }

  /** Reads no more until `resume`: the other side waits then. */
  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  write(bytes: Uint8Array): boolean {
    if (this.#socket.destroyed) return true;
    if (!this.#isCorked) {
      // The frames of one turn go in one system call.
      this.#isCorked = true;
      this.#socket.cork();
      process.nextTick(() => {
        this.#isCorked = false;
        this.#socket.uncork();
      });
    }
    return this.#socket.write(Buffer.from(bytes));
  }

  close(): void {
    this.onBytes = undefined;
    this.onDrain = undefined;
    this.onClose = undefined;
    const socket = this.#socket;
    if (this.#isCorked) socket.uncork();
    // What is written goes out, if the other side takes it; nobody waits for that.
    socket.destroySoon();
    socket.unref();
    setTimeout(() => socket.destroy(), LINGER_MS).unref();
  }
}
