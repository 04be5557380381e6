// One client of a relay: another process that speaks the agent's protocol over a socket of this one. Its streams get other
// numbers on the connection that all share; its windows and the agent's are the same ones, so nothing piles up in between
// but what one window holds.
import { ByteQueue } from "./byte-queue.js";
import type { AgentConnection } from "./connection.js";
import * as frames from "./frames.js";
import { decodeHello, encodeHello, MAX_STREAMS } from "./hello.js";
import { relayedRequest } from "./relayed-request.js";
import { WINDOW, type AgentStream, type Output, type Waiter } from "./stream.js";
import type { AgentTransport } from "./transport.js";

/** A transport whose other side can be made to wait. */
export interface PausableTransport extends AgentTransport {
  pause(): void;
  resume(): void;
}

const EAGAIN = 11;
const MAX_TEXT = 1024;
const CREDIT_PIECE = WINDOW / 4;
const MAX_PING = 64;

/** The client has broken the protocol: a defect of it. */
class ClientError extends Error {}

interface Relayed {
  readonly stream: AgentStream;
  /** What the client has sent and the agent has no credit for yet. */
  readonly input: ByteQueue;
  /** The first piece of it, as far as it has not been sent. */
  rest: Buffer | undefined;
  /** What the client may still send, and what it has not been given back. */
  credit: number;
  owed: number;
  hasEnded: boolean;
  /** What the client has been sent of each output, and has not given back. */
  readonly unread: number[];
}

export class RelayClient implements Waiter {
  readonly #connection: AgentConnection;
  readonly #transport: PausableTransport;
  readonly #nonce: number;
  readonly #onGone: (client: RelayClient) => void;
  readonly #streams = new Map<number, Relayed>();
  readonly #decoder: frames.FrameDecoder;
  #isGreeted = false;
  #isGone = false;
  /** Its transport takes no more. */
  #isFull = false;

  constructor(
    connection: AgentConnection,
    transport: PausableTransport,
    nonce: number,
    onGone: (client: RelayClient) => void,
  ) {
    this.#connection = connection;
    this.#transport = transport;
    this.#nonce = nonce;
    this.#onGone = onGone;
    this.#decoder = new frames.FrameDecoder((stream, type, payload) => {
      this.#receive(stream, type, payload);
    });
    transport.onBytes = (bytes) => {
      this.#receiveBytes(bytes);
    };
    transport.onDrain = () => {
      this.#isFull = false;
      this.#readOn();
    };
    transport.onClose = () => {
      this.close();
    };
    this.#sendHello();
  }

  /** Gives up all that it has under way. May be called twice. */
  close(): void {
    if (this.#isGone) return;
    this.#isGone = true;
    this.#decoder.stop();
    this.#transport.close();
    const streams = [...this.#streams.values()];
    this.#streams.clear();
    for (const { stream } of streams) stream.cancel();
    this.#onGone(this);
  }

  /** The agent's transport takes more: the client may go on. */
  flush(): void {
    this.#readOn();
  }

  #readOn(): void {
    if (!this.#isGone && !this.#isFull && !this.#connection.isBlocked) this.#transport.resume();
  }

  #send(id: number, type: number, payload?: Uint8Array): void {
    if (this.#isGone) return;
    if (!this.#transport.write(frames.encodeFrame(id, type, payload))) {
      // It does not read: it is not heard either, until it does.
      this.#isFull = true;
      this.#transport.pause();
    }
  }

  #sendHello(): void {
    this.#send(0, frames.HELLO, encodeHello({ streams: MAX_STREAMS, nonce: this.#nonce }));
  }

  #receiveBytes(bytes: Uint8Array): void {
    try {
      this.#decoder.push(bytes);
    } catch (error) {
      if (!(error instanceof ClientError) && (error as { code?: unknown }).code !== "ERR_AGENT") throw error;
      this.close();
      return;
    }
    if (this.#connection.isBlocked && !this.#isGone) {
      this.#transport.pause();
      this.#connection.later(this);
    }
  }

  #receive(id: number, type: number, payload: Buffer): void {
    if (id === 0) {
      this.#receiveOwn(type, payload);
      return;
    }
    if (!this.#isGreeted) return;
    const relayed = this.#streams.get(id);
    if (relayed === undefined) this.#open(id, type, payload);
    else this.#receiveFor(id, relayed, type, payload);
  }

  #receiveOwn(type: number, payload: Buffer): void {
    if (type === frames.HELLO) {
      const { nonce } = decodeHello(payload, "A client");
      if (nonce === this.#nonce) this.#isGreeted = true;
      else this.#sendHello();
    } else if (type === frames.PING && payload.length <= MAX_PING) this.#send(0, frames.PONG, payload);
    else throw new ClientError("A frame that no client sends");
  }

  #open(id: number, type: number, payload: Buffer): void {
    const request = relayedRequest(type, payload);
    if (request === undefined) {
      // What belongs to a stream that has ended crosses its end on the way.
      if (OF_STREAMS.has(type)) return;
      throw new ClientError("A frame that no client sends");
    }
    if (id > frames.MAX_STREAM) throw new ClientError("A stream that cannot be");
    if (this.#streams.size >= MAX_STREAMS) {
      this.#send(id, frames.FAILED, failure(EAGAIN, "too many requests at once"));
      return;
    }
    const over = (lastType: number, last: Uint8Array): void => {
      if (this.#streams.delete(id)) this.#send(id, lastType, last);
    };
    const stream = this.#connection.open(request, {
      onStarted: (pid) => {
        this.#send(id, frames.STARTED, u32(pid));
      },
      onData: (output, bytes) => {
        relayed.unread[output] = (relayed.unread[output] ?? 0) + bytes.length;
        this.#send(id, output === 1 ? frames.DATA : frames.DATA2, bytes);
      },
      onEnd: (output) => {
        this.#send(id, frames.END, output === 1 ? undefined : Buffer.from([2]));
      },
      onClosed: () => {
        this.#send(id, frames.CLOSED);
      },
      onWritable: () => {
        this.#pump(id, relayed);
      },
      onDone: (answer) => {
        over(frames.DONE, answer);
      },
      onRefused: (errno, text) => {
        over(frames.FAILED, failure(errno, text));
      },
      onLost: () => {
        this.close();
      },
    });
    const relayed: Relayed = {
      stream,
      input: new ByteQueue(),
      rest: undefined,
      credit: request.hasInput === true ? WINDOW : 0,
      owed: 0,
      hasEnded: false,
      unread: [0, 0, 0],
    };
    this.#streams.set(id, relayed);
  }

  #receiveFor(id: number, relayed: Relayed, type: number, payload: Buffer): void {
    const { hasInput = false, isCommand = false } = relayed.stream.request;
    switch (type) {
      case frames.DATA:
        if (payload.length > relayed.credit || relayed.hasEnded || !hasInput)
          throw new ClientError("Data above the credit");
        relayed.credit -= payload.length;
        relayed.input.push(payload);
        this.#pump(id, relayed);
        return;
      case frames.END:
        if (!hasInput) throw new ClientError("An end where nothing is sent");
        relayed.hasEnded = true;
        this.#pump(id, relayed);
        return;
      case frames.CREDIT:
        this.#receiveCredit(relayed, payload);
        return;
      case frames.SIGNAL:
      case frames.RESIZE:
        if (payload.length !== 4 || !isCommand) throw new ClientError("A frame of another length");
        relayed.stream.control(type, payload);
        return;
      case frames.CANCEL:
        relayed.stream.cancel();
        return;
      default:
        throw new ClientError("A frame that no client sends");
    }
  }

  #receiveCredit({ stream, unread }: Relayed, payload: Buffer): void {
    const output = payload.length === 8 ? payload.readUInt32LE(0) : 0;
    if (output !== 1 && output !== 2) throw new ClientError("Credit of an unknown kind");
    const bytes = payload.readUInt32LE(4);
    const left = (unread[output] ?? 0) - bytes;
    if (left < 0) throw new ClientError("More credit than was used");
    unread[output] = left;
    stream.consumed(output satisfies Output, bytes);
  }

  /** Sends on what the agent has credit for, and gives the client as much back. */
  #pump(id: number, relayed: Relayed): void {
    for (;;) {
      relayed.rest ??= relayed.input.shift();
      const rest = relayed.rest;
      if (rest === undefined) break;
      const sent = relayed.stream.write(rest);
      relayed.owed += sent;
      relayed.rest = sent === rest.length ? undefined : rest.subarray(sent);
      if (sent < rest.length) break;
    }
    if (relayed.owed >= CREDIT_PIECE && !relayed.hasEnded) {
      this.#send(id, frames.CREDIT, Buffer.concat([u32(1), u32(relayed.owed)]));
      relayed.credit += relayed.owed;
      relayed.owed = 0;
    }
    if (relayed.hasEnded && relayed.rest === undefined) relayed.stream.end();
  }
}

/** Frames that belong to a stream, and are dropped where it has ended. */
const OF_STREAMS: ReadonlySet<number> = new Set([
  frames.DATA,
  frames.END,
  frames.CREDIT,
  frames.SIGNAL,
  frames.RESIZE,
  frames.CANCEL,
]);

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value >>> 0, 0);
  return bytes;
}

function failure(errno: number, text: string): Buffer {
  return Buffer.concat([u32(errno), Buffer.from(text).subarray(0, MAX_TEXT)]);
}
