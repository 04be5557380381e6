// Several processes share one connection to a guest's agent: each has a Unix socket of this one, and speaks the agent's
// protocol over it as if the agent were there.
import { randomInt } from "node:crypto";
import type { AgentConnection } from "./connection.js";
import { RelayClient, type PausableTransport } from "./relay-client.js";

/** Clients at once; more are turned away. */
const MAX_CLIENTS = 256;
const MAX_NONCE = 2 ** 32;

export class AgentRelay {
  readonly #connection: AgentConnection;
  readonly #clients = new Set<RelayClient>();
  #isClosed = false;

  /** The connection stays the caller's. */
  constructor(connection: AgentConnection) {
    this.#connection = connection;
    void connection.closed.then(() => {
      this.close();
    });
  }

  get clientCount(): number {
    return this.#clients.size;
  }

  /** Serves a client until it goes; what it has under way is given up then. */
  accept(transport: PausableTransport): void {
    if (this.#isClosed || this.#clients.size >= MAX_CLIENTS) {
      transport.close();
      return;
    }
    const client = new RelayClient(this.#connection, transport, randomInt(1, MAX_NONCE), (gone) => {
      this.#clients.delete(gone);
    });
    this.#clients.add(client);
  }

  /** Sends all clients away. May be called twice. */
  close(): void {
    this.#isClosed = true;
    for (const client of [...this.#clients]) client.close();
  }
}
