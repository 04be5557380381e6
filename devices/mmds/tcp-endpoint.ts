// Everybody that the guest talks TCP with at one address and port: a few connections, and refusals for the rest.
import { advanced } from "./sequence.js";
import { TcpConnection, type Session } from "./tcp-connection.js";
import { ACK, FIN, RST, SYN, type Peer, type Segment } from "./wire.js";

/** Whoever wants one more takes the place of the one that has been silent longest, if that is so long, `ms`. */
export const MAX_CONNECTIONS = 30;
const IDLE_MS = 1000;
/** Refusals that wait for a buffer of the guest; more are dropped. */
export const MAX_REFUSALS = 64;

export interface TcpEndpointOptions {
  readonly port: number;
  readonly newSession: () => Session;
  /** 32 bits that the guest does not know beforehand. */
  readonly random: () => number;
}

export interface OutgoingSegment {
  readonly to: Peer;
  /** The port that it comes from. */
  readonly port: number;
  readonly segment: Partial<Segment>;
}

export class TcpEndpoint {
  readonly #options: TcpEndpointOptions;
  /** By address and port of the guest, the one heard last at the end. */
  readonly #connections = new Map<number, TcpConnection>();
  readonly #refusals: OutgoingSegment[] = [];

  constructor(options: TcpEndpointOptions) {
    this.#options = options;
  }

  get connectionCount(): number {
    return this.#connections.size;
  }

  /** When `next` may have something that it has not now, `ms`. */
  get dueMs(): number {
    let due = Infinity;
    for (const connection of this.#connections.values()) due = Math.min(due, connection.dueMs);
    return due;
  }

  receive(from: Peer, port: number, segment: Segment, nowMs: number): void {
    const key = keyOf(from);
    const connection = port === this.#options.port ? this.#connections.get(key) : undefined;
    if (connection !== undefined) {
      this.#connections.delete(key);
      connection.receive(segment, nowMs);
      if (!connection.isGone) this.#connections.set(key, connection);
      return;
    }
    if ((segment.flags & RST) !== 0) return;
    const isOpening = (segment.flags & (SYN | ACK | FIN)) === SYN;
    if (port !== this.#options.port || !isOpening || !this.#hasRoom(nowMs)) {
      this.#refuse(from, port, segment);
      return;
    }
    const { newSession, random } = this.#options;
    this.#connections.set(key, new TcpConnection(from, segment, random() >>> 0, newSession(), nowMs));
  }

  /** The next segment for the guest, or undefined. */
  next(nowMs: number): OutgoingSegment | undefined {
    const refusal = this.#refusals.shift();
    if (refusal !== undefined) return refusal;
    for (const [key, connection] of this.#connections) {
      const segment = connection.nextSegment(nowMs);
      if (connection.isGone) this.#connections.delete(key);
      if (segment !== undefined) return { to: connection.peer, port: this.#options.port, segment };
    }
    return undefined;
  }

  /** Forgets everybody. */
  reset(): void {
    this.#connections.clear();
    this.#refusals.length = 0;
  }

  #hasRoom(nowMs: number): boolean {
    if (this.#connections.size < MAX_CONNECTIONS) return true;
    const [oldest] = this.#connections;
    if (oldest === undefined || nowMs - oldest[1].heardAtMs < IDLE_MS) return false;
    this.#connections.delete(oldest[0]);
    return true;
  }

  /** RFC 9293 §3.10.7.1. */
  #refuse(to: Peer, port: number, { sequence, acknowledgement, flags, payload }: Segment): void {
    if (this.#refusals.length >= MAX_REFUSALS) return;
    const length = payload.length + ((flags & SYN) === 0 ? 0 : 1) + ((flags & FIN) === 0 ? 0 : 1);
    const segment =
      (flags & ACK) === 0
        ? { flags: RST | ACK, acknowledgement: advanced(sequence, length) }
        : { flags: RST, sequence: acknowledgement };
    this.#refusals.push({ to, port, segment });
  }
}

function keyOf({ address, port }: Peer): number {
  return address * 2 ** 16 + port;
}
