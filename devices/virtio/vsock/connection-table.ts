// Connections by their pair of ports; two levels, because a key made of both would be an object
// on the heap for every packet.
import type { Connection } from "./connection.js";

/** Ports from here on name connections that host programs have begun. */
const FIRST_HOST_PORT = 2 ** 30;

export class ConnectionTable {
  readonly #byHostPort = new Map<number, Map<number, Connection>>();
  #size = 0;
  #nextHostPort = FIRST_HOST_PORT;

  get size(): number {
    return this.#size;
  }

  get(hostPort: number, guestPort: number): Connection | undefined {
    return this.#byHostPort.get(hostPort)?.get(guestPort);
  }

  add(connection: Connection): void {
    const { hostPort, guestPort } = connection;
    let guestPorts = this.#byHostPort.get(hostPort);
    if (guestPorts === undefined) this.#byHostPort.set(hostPort, (guestPorts = new Map<number, Connection>()));
    guestPorts.set(guestPort, connection);
    this.#size++;
  }

  /** Does nothing if it is gone already, even if another connection has its ports now. */
  delete(connection: Connection): void {
    const { hostPort, guestPort } = connection;
    const guestPorts = this.#byHostPort.get(hostPort);
    if (guestPorts?.get(guestPort) !== connection) return;
    guestPorts.delete(guestPort);
    this.#size--;
    if (guestPorts.size === 0) this.#byHostPort.delete(hostPort);
  }

  /** A port of the host that no connection uses. */
  freeHostPort(): number {
    do {
      this.#nextHostPort = this.#nextHostPort === 2 ** 31 - 1 ? FIRST_HOST_PORT : this.#nextHostPort + 1;
    } while (this.#byHostPort.has(this.#nextHostPort));
    return this.#nextHostPort;
  }

  *values(): Generator<Connection> {
    for (const guestPorts of this.#byHostPort.values()) yield* guestPorts.values();
  }

  clear(): void {
    this.#byHostPort.clear();
    this.#size = 0;
  }
}
