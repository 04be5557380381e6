// The host's end of the conversation with a guest's agent: HELLO, streams, their windows, their end. docs/agent-protocol.md.
// The guest is hostile: whatever it sends that the protocol does not allow ends the connection, with an error that says what
// it was; whatever it does not send has a limit; and what is kept of it is bounded by the windows of its streams.
import { AgentError } from "../errors.js";
import * as frames from "./frames.js";
import { decodeHello, encodeHello, MAX_STREAMS } from "./hello.js";
import { HelloSearch } from "./hello-search.js";
import { AgentStream, type StreamCarrier, type StreamEvents, type StreamRequest, type Waiter } from "./stream.js";
import { TimeLimits } from "./time-limits.js";
import type { AgentTransport } from "./transport.js";

/** For the agent's HELLO, from the beginning: a guest boots before. */
const HELLO_LIMIT_MS = 60_000;
/** Without a word of the guest while something is under way, until it is asked whether it is there. */
const SILENCE_MS = 15_000;
/** For the answer to that. */
const ANSWER_LIMIT_MS = 10_000;
/** A guest that has once needed so long may need a few times as long; one that makes it longer each time, not for ever. */
const SLOWEST_TIMES = 4;
const MAX_ANSWER_LIMIT_MS = 120_000;
/** Whatever else it says meanwhile. */
const LONGEST_ANSWER_MS = 600_000;
/** For the end of what has been given up: whoever has done that waits for it. */
const GIVE_UP_LIMIT_MS = 1000;
/** Payloads up to this are sent in one piece with their header. */
const SMALL = 4096;
const PING_BYTES = 8;

export interface ConnectionOptions {
  /** For the agent's HELLO, `ms`; longer on a slow host. */
  readonly helloLimitMs?: number;
  /** Without a word of the guest while something is under way, until it is asked whether it is there, `ms`. */
  readonly silenceMs?: number;
  /** For its answer, and at most for the end of what has been given up, `ms`; longer on a slow host. */
  readonly answerLimitMs?: number;
  /** Asks for the agent's HELLO: it may have been sent before anybody listened, as on a serial line. */
  readonly asksFirst?: boolean;
  /** The agent has had this host's HELLO: what goes on from a snapshot with a held program. */
  readonly isGreeted?: boolean;
  /** The agent's, where it is known before its HELLO: of a guest of a template it is 1. Requests go out at once. */
  readonly nonce?: number;
}

interface Ping {
  readonly payload: Buffer;
  readonly sentMs: number;
  readonly resolve: (ms: number) => void;
  readonly reject: (error: AgentError) => void;
  callOff: () => void;
}

/**
 * One connection to an agent. Requests may be made at once: before HELLO, and while all streams are in use, they wait;
 * after the end they fail with AgentError.
 */
export class AgentConnection implements StreamCarrier {
  /** Settled once the agent has said HELLO, or never will. */
  readonly ready: Promise<void>;
  /** Resolved once the connection is over, with the reason. */
  readonly closed: Promise<AgentError>;
  readonly #transport: AgentTransport;
  readonly #decoder: frames.FrameDecoder;
  readonly #limits = new TimeLimits();
  readonly #silenceMs: number;
  readonly #answerLimitMs: number;
  readonly #streams = new Map<number, AgentStream>();
  /** Those that wait for a number. */
  readonly #waiting = new Set<AgentStream>();
  /** Those that have something to say once the transport takes more. */
  readonly #blocked = new Set<Waiter>();
  /** Calls off the limit for the end of each that has been cancelled. */
  readonly #givenUp = new Map<AgentStream, () => void>();
  readonly #pings: Ping[] = [];
  /** Until the agent's HELLO has come. */
  #search: HelloSearch | undefined;
  #callOffHello: (() => void) | undefined;
  #error: AgentError | undefined;
  #isReady = false;
  #isBlocked = false;
  #nonce: number | undefined;
  #maxStreams = MAX_STREAMS;
  #lastStream = 0;
  #lastPing = 0;
  #heardMs = performance.now();
  /** The longest that an answer of this guest has taken. */
  #slowestMs = 0;
  #watchTimer: NodeJS.Timeout | undefined;
  #resolveReady: () => void = () => undefined;
  #rejectReady: (error: AgentError) => void = () => undefined;
  #resolveClosed: (error: AgentError) => void = () => undefined;

  constructor(transport: AgentTransport, options: ConnectionOptions = {}) {
    this.#transport = transport;
    this.#silenceMs = options.silenceMs ?? SILENCE_MS;
    this.#answerLimitMs = options.answerLimitMs ?? ANSWER_LIMIT_MS;
    this.ready = new Promise((resolve, reject) => {
      this.#resolveReady = resolve;
      this.#rejectReady = reject;
    });
    // Whoever does not wait for it hears of the end from its own requests.
    this.ready.catch(() => undefined);
    this.closed = new Promise((resolve) => (this.#resolveClosed = resolve));
    this.#decoder = new frames.FrameDecoder((stream, type, payload) => {
      this.#receive(stream, type, payload);
    });
    transport.onBytes = (bytes) => {
      this.#receiveBytes(bytes);
    };
    transport.onDrain = () => {
      this.#drain();
    };
    transport.onClose = (cause) => {
      this.#fail(new AgentError("gone", "The connection to the guest's agent has ended", { cause }));
    };
    if (options.isGreeted === true) {
      this.#becomeReady();
      return;
    }
    this.#search = new HelloSearch();
    const helloMs = options.helloLimitMs ?? HELLO_LIMIT_MS;
    this.#callOffHello = this.#limits.after("the agent's first word", helloMs, (limitMs) => {
      this.#fail(new AgentError("silent", `The guest's agent has not said HELLO in ${seconds(limitMs)}`));
    });
    if (options.asksFirst === true) this.send(0, frames.HELLO, encodeHello({ streams: 0, nonce: 0 }));
    if (options.nonce !== undefined) this.#greet(options.nonce);
  }

  /** Why the connection is over; undefined while it is not. */
  get error(): AgentError | undefined {
    return this.#error;
  }

  /** Streams that are open or wait. */
  get streamCount(): number {
    return this.#streams.size + this.#waiting.size;
  }

  /** Makes a request, once the agent has said HELLO and a stream is free. After the end: onLost, in a later turn. */
  open(request: StreamRequest, events: StreamEvents): AgentStream {
    const stream = new AgentStream(this, request, events);
    if (request.payload.length > frames.MAX_PAYLOAD) {
      const text = `${String(request.payload.length)} bytes of arguments, the limit is ${String(frames.MAX_PAYLOAD)}`;
      queueMicrotask(() => {
        stream.refuse(E2BIG, text);
      });
      return stream;
    }
    const error = this.#error;
    if (error !== undefined) {
      queueMicrotask(() => {
        stream.lose(error);
      });
      return stream;
    }
    this.#waiting.add(stream);
    this.#beginWaiting();
    return stream;
  }

  /** A stream that the agent knows already, of a program that a guest's snapshot holds, or in which it has begun and said nothing. */
  takeUp(id: number, request: StreamRequest, events: StreamEvents, isStarted = false): AgentStream {
    const stream = new AgentStream(this, request, events);
    const error = this.#error;
    if (error !== undefined) {
      queueMicrotask(() => {
        stream.lose(error);
      });
      return stream;
    }
    this.#streams.set(id, stream);
    this.#lastStream = Math.max(this.#lastStream, id);
    stream.begin(id, true, isStarted);
    this.#watch();
    return stream;
  }

  /** How long the agent takes for an answer, `ms`. Rejects with AgentError; silence ends the connection. */
  async ping(): Promise<number> {
    await this.ready;
    if (this.#error !== undefined) throw this.#error;
    return new Promise((resolve, reject) => {
      const payload = Buffer.alloc(PING_BYTES);
      payload.writeUInt32LE(++this.#lastPing >>> 0, 0);
      const ping: Ping = { payload, sentMs: performance.now(), resolve, reject, callOff: () => undefined };
      this.#limitAnswer(ping);
      this.#pings.push(ping);
      this.send(0, frames.PING, payload);
    });
  }

  /** On a slow line an answer comes behind all that is on its way: a guest that says or takes anything meanwhile is not silent. */
  #limitAnswer(ping: Ping): void {
    const usualMs = Math.min(Math.max(this.#answerLimitMs, SLOWEST_TIMES * this.#slowestMs), MAX_ANSWER_LIMIT_MS);
    ping.callOff = this.#limits.after("an answer of the agent", usualMs, (limitMs) => {
      const now = performance.now();
      if (now - this.#heardMs < limitMs && now - ping.sentMs < LONGEST_ANSWER_MS) this.#limitAnswer(ping);
      else this.#fail(new AgentError("silent", `The guest's agent has not answered in ${seconds(limitMs)}`));
    });
  }

  /** While the guest is paused, its silence is none, and nobody waits for the end of what has been given up. */
  setPaused(isPaused: boolean): void {
    this.#limits.isHeld = isPaused;
    if (!isPaused) return;
    for (const [stream, callOff] of [...this.#givenUp]) {
      callOff();
      this.#givenUp.delete(stream);
      stream.refuse(ECANCELED, GIVEN_UP_PAUSED);
    }
  }

  /** Ends the connection, and what is under way on it. May be called twice. */
  close(): void {
    this.#fail(new AgentError("closed", "The connection to the guest's agent is closed"));
  }

  // ── For its streams ──────────────────────────────────────────────────────────────────────────

  get isBlocked(): boolean {
    return this.#isBlocked;
  }

  send(stream: number, type: number, payload?: Uint8Array): void {
    if (this.#error !== undefined) return;
    let takesMore: boolean;
    if (payload === undefined || payload.length <= SMALL) {
      takesMore = this.#transport.write(
        frames.encodeFrame(stream, type, payload),
        type === frames.CREDIT ? "later" : "now",
      );
    } else {
      this.#transport.write(frames.encodeHeader(stream, type, payload.length), "more");
      takesMore = this.#transport.write(payload);
    }
    if (!takesMore) this.#isBlocked = true;
  }

  later(waiter: Waiter): void {
    this.#blocked.add(waiter);
  }

  cancelled(stream: AgentStream): void {
    // What ends with the connection is told so: whoever hears of it first may give the others up.
    if (this.#error !== undefined) return;
    if (this.#waiting.delete(stream)) {
      queueMicrotask(() => {
        stream.refuse(ECANCELED, "given up before it began");
      });
      return;
    }
    if (this.#limits.isHeld) {
      // The guest hears of it when it goes on.
      queueMicrotask(() => {
        stream.refuse(ECANCELED, GIVEN_UP_PAUSED);
      });
      return;
    }
    const usualMs = Math.min(GIVE_UP_LIMIT_MS, this.#answerLimitMs);
    const callOff = this.#limits.after("the end of what has been given up", usualMs, (limitMs) => {
      this.#givenUp.delete(stream);
      // The number stays in use: the agent may still answer. The caller need not wait for that.
      stream.refuse(ECANCELED, `given up; the guest has not confirmed it in ${seconds(limitMs)}`);
    });
    this.#givenUp.set(stream, callOff);
  }

  // ── From the transport ───────────────────────────────────────────────────────────────────────

  #receiveBytes(bytes: Uint8Array): void {
    if (this.#error !== undefined) return;
    this.#heardMs = performance.now();
    try {
      const known = this.#search === undefined ? bytes : this.#search.push(bytes);
      if (known === undefined) return;
      this.#search = undefined;
      this.#decoder.push(known);
    } catch (error) {
      this.#failOrThrow(error);
    }
  }

  #receive(id: number, type: number, payload: Buffer): void {
    try {
      if (id === 0) {
        this.#receiveOwn(type, payload);
        return;
      }
      const stream = this.#streams.get(id);
      // Ends cross on their way; what belongs to no stream is dropped.
      if (stream?.receive(type, payload) !== true) return;
      this.#streams.delete(id);
      this.#blocked.delete(stream);
      this.#givenUp.get(stream)?.();
      this.#givenUp.delete(stream);
      this.#beginWaiting();
    } catch (error) {
      this.#failOrThrow(error);
    }
  }

  #receiveOwn(type: number, payload: Buffer): void {
    if (type === frames.HELLO) this.#receiveHello(payload);
    else if (type === frames.PONG) this.#receivePong(payload);
    else throw new AgentError("protocol", `The guest's agent has sent a frame of the unknown type ${String(type)}`);
  }

  #receiveHello(payload: Buffer): void {
    const { streams, nonce } = decodeHello(payload, "The guest's agent");
    if (streams === 0 || nonce === 0)
      throw new AgentError("protocol", "The guest's agent has sent a HELLO that is none");
    this.#callOffHello?.();
    this.#maxStreams = Math.min(streams, MAX_STREAMS);
    // The same HELLO comes again where this side has asked for it and it was on its way.
    if (nonce === this.#nonce) return;
    // Each is answered: a guest that says nothing else and takes nothing in must not fill the memory with answers.
    if (this.#isBlocked) throw new AgentError("protocol", "The guest's agent begins anew, and takes no answer");
    if (this.#isReady) this.#beginAnew();
    this.#greet(nonce);
  }

  #greet(nonce: number): void {
    this.#nonce = nonce;
    this.send(0, frames.HELLO, encodeHello({ streams: 0, nonce }));
    this.#becomeReady();
  }

  /** After a snapshot, or a frame that it did not understand, the agent knows nothing of what was under way. */
  #beginAnew(): void {
    const error = new AgentError("gone", "The guest's agent has begun anew: what was under way is lost");
    const streams = [...this.#streams.values()];
    this.#streams.clear();
    this.#blocked.clear();
    for (const callOff of this.#givenUp.values()) callOff();
    this.#givenUp.clear();
    for (const { reject, callOff } of this.#pings.splice(0)) {
      callOff();
      reject(error);
    }
    for (const stream of streams) stream.lose(error);
  }

  #receivePong(payload: Buffer): void {
    const [ping] = this.#pings;
    if (ping === undefined || !ping.payload.equals(payload)) {
      throw new AgentError("protocol", "The guest's agent has answered what nobody has asked");
    }
    this.#pings.shift();
    ping.callOff();
    const tookMs = performance.now() - ping.sentMs;
    this.#slowestMs = Math.max(this.#slowestMs, tookMs);
    ping.resolve(tookMs);
  }

  #becomeReady(): void {
    this.#isReady = true;
    this.#resolveReady();
    this.#beginWaiting();
  }

  #drain(): void {
    // Nobody waits unless it was blocked, so a transport may say it within a write.
    if (this.#error !== undefined || !this.#isBlocked) return;
    this.#isBlocked = false;
    // Whoever takes what is sent is there.
    this.#heardMs = performance.now();
    this.#beginWaiting();
    // One after the other, each once: whoever is blocked again comes last the next time.
    for (const waiter of [...this.#blocked]) {
      if (this.isBlocked) return;
      this.#blocked.delete(waiter);
      waiter.flush();
    }
  }

  #beginWaiting(): void {
    for (const stream of this.#waiting) {
      if (!this.#isReady || this.#isBlocked || this.#error !== undefined || this.#streams.size >= this.#maxStreams)
        return;
      this.#waiting.delete(stream);
      const id = this.#freeNumber();
      this.#streams.set(id, stream);
      stream.begin(id);
      this.#watch();
    }
  }

  #freeNumber(): number {
    do {
      this.#lastStream = this.#lastStream >= frames.MAX_STREAM ? 1 : this.#lastStream + 1;
    } while (this.#streams.has(this.#lastStream));
    return this.#lastStream;
  }

  /** Asks a guest that has been silent for long whether it is there, as long as something is under way. */
  #watch(): void {
    if (this.#watchTimer !== undefined) return;
    const look = (): void => {
      this.#watchTimer = undefined;
      if (this.#streams.size === 0 || this.#error !== undefined) return;
      const isSilent = performance.now() - this.#heardMs >= this.#silenceMs;
      if (isSilent && this.#pings.length === 0 && !this.#limits.isHeld) this.ping().catch(() => undefined);
      this.#watch();
    };
    this.#watchTimer = setTimeout(look, this.#silenceMs);
    this.#watchTimer.unref();
  }

  /** A lie of the guest ends the connection; a defect of whoever listens to a stream is its own. */
  #failOrThrow(error: unknown): void {
    if (error instanceof AgentError) {
      this.#fail(error);
      return;
    }
    process.nextTick(() => {
      throw error;
    });
  }

  #fail(error: AgentError): void {
    if (this.#error !== undefined) return;
    this.#error = error;
    this.#decoder.stop();
    this.#limits.clear();
    clearTimeout(this.#watchTimer);
    const streams = [...this.#streams.values(), ...this.#waiting];
    this.#streams.clear();
    this.#waiting.clear();
    this.#blocked.clear();
    this.#transport.onBytes = undefined;
    this.#transport.onDrain = undefined;
    this.#transport.onClose = undefined;
    this.#transport.close();
    this.#rejectReady(error);
    for (const ping of this.#pings.splice(0)) ping.reject(error);
    for (const stream of streams) stream.lose(error);
    this.#resolveClosed(error);
  }
}

const GIVEN_UP_PAUSED = "given up while the guest is paused";
const E2BIG = 7;
const ECANCELED = 125;

function seconds(ms: number): string {
  return `${String(Math.round(ms / 100) / 10)} s`;
}
