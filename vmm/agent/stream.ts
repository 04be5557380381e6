// One request of the host and all that belongs to it: its content both ways, the windows, its end.
// docs/agent-protocol.md, "Streams".
import { AgentError } from "../errors.js";
import * as frames from "./frames.js";

/** What may be under way in each direction of a stream, `bytes`. */
export const WINDOW = 524_288;
/** Of one DATA frame, so that streams take turns on a slow line. */
const MAX_PIECE = 32_768;
/** Credit is given back in pieces of at least this. */
const CREDIT_PIECE = WINDOW / 4;
const MAX_FAILED_TEXT = 1024;
/** More signals of one kind say no more than one. */
const MAX_EARLY = 64;
const MAX_PID = 2 ** 22;

/** 1: DATA, standard output, a file's content. 2: DATA2, standard error. */
export type Output = 1 | 2;

/** A request, and which frames may answer it. */
export interface StreamRequest {
  readonly type: number;
  readonly payload: Uint8Array;
  /** In errors: "read /etc/passwd". */
  readonly what: string;
  /** How many outputs the agent may send: none, DATA, DATA and DATA2. */
  readonly outputs: 0 | 1 | 2;
  /** The host sends DATA. */
  readonly hasInput?: boolean;
  /** STARTED comes before any output, CLOSED may come. */
  readonly isCommand?: boolean;
}

/** What happens on a stream. Exactly one of onDone, onRefused and onLost is called, and nothing after it. */
export interface StreamEvents {
  onStarted?(pid: number): void;
  /** The bytes count against the window until `consumed` is told; they may be a view of more. */
  onData?(output: Output, bytes: Buffer): void;
  onEnd?(output: Output): void;
  /** Nobody reads the input any more. */
  onClosed?(): void;
  /** After a `write` that did not take all. */
  onWritable?(): void;
  /** Throws AgentError where the payload is none of the request's: the connection ends with it, and onLost is called. */
  onDone(payload: Buffer): void;
  /** The guest has refused: errno (0: none fits) and text. */
  onRefused(errno: number, text: string): void;
  /** The connection is over. */
  onLost(error: AgentError): void;
}

/** Something that has more to say once the transport takes more. */
export interface Waiter {
  flush(): void;
}

/** What a stream needs of its connection. */
export interface StreamCarrier {
  /** The transport takes no more for now: only what ends something may still be sent. */
  readonly isBlocked: boolean;
  send(stream: number, type: number, payload?: Uint8Array): void;
  /** `flush` is called once the transport takes more. */
  later(waiter: Waiter): void;
  /** It has been given up. */
  cancelled(stream: AgentStream): void;
}

function lie(text: string): AgentError {
  return new AgentError("protocol", `The guest's agent ${text}`);
}

export class AgentStream implements Waiter {
  readonly request: StreamRequest;
  /** Its number; 0 while it waits for its turn. */
  id = 0;
  readonly #carrier: StreamCarrier;
  #events: StreamEvents | undefined;
  #isOpen = false;
  #isCancelled = false;
  #isStarted = false;
  /** What may still be sent. */
  #credit = WINDOW;
  #hasEnded = false;
  #wantsToWrite = false;
  #isInputClosed = false;
  /** Frames about a request that still waits for its turn. */
  readonly #early: (readonly [type: number, payload: Uint8Array])[] = [];
  /** By output: what the agent may still send, what has been taken and not been given back, whether all has come. */
  readonly #granted = [0, WINDOW, WINDOW];
  readonly #owed = [0, 0, 0];
  readonly #isOver = [false, false, false];
  readonly #isDiscarded = [false, false, false];

  constructor(carrier: StreamCarrier, request: StreamRequest, events: StreamEvents) {
    this.#carrier = carrier;
    this.request = request;
    this.#events = events;
  }

  /** Neither DONE nor FAILED nor the connection's end has been reported. */
  get isLive(): boolean {
    return this.#events !== undefined;
  }

  get isCancelled(): boolean {
    return this.#isCancelled;
  }

  /** Nobody reads what is written: it is dropped. */
  get isInputClosed(): boolean {
    return this.#isInputClosed || this.#isCancelled || !this.isLive;
  }

  /** How many of `bytes` have been sent; after fewer than all, onWritable comes. What nobody reads counts as sent. */
  write(bytes: Uint8Array): number {
    if (this.isInputClosed) return bytes.length;
    let sent = 0;
    while (this.#isOpen && sent < bytes.length && this.#credit > 0 && !this.#carrier.isBlocked) {
      const count = Math.min(bytes.length - sent, this.#credit, MAX_PIECE);
      this.#credit -= count;
      this.#carrier.send(this.id, frames.DATA, bytes.subarray(sent, sent + count));
      sent += count;
    }
    if (sent < bytes.length) {
      this.#wantsToWrite = true;
      if (this.#isOpen && this.#credit > 0) this.#carrier.later(this);
    }
    return sent;
  }

  /** Nothing follows. */
  end(): void {
    if (this.#hasEnded || this.isInputClosed || this.request.hasInput !== true) return;
    this.#hasEnded = true;
    if (this.#isOpen) this.#carrier.send(this.id, frames.END);
  }

  /** A frame about the request: SIGNAL, RESIZE. It follows the request, and is dropped after its end. */
  control(type: number, payload: Uint8Array): void {
    if (!this.isLive) return;
    if (this.#isOpen) this.#carrier.send(this.id, type, payload);
    else if (this.#early.length < MAX_EARLY) this.#early.push([type, payload]);
  }

  /** The reader has taken `count` bytes that onData has brought. */
  consumed(output: Output, count: number): void {
    const owed = (this.#owed[output] ?? 0) + count;
    this.#owed[output] = owed;
    if (owed < CREDIT_PIECE || !this.#isOpen || this.#isOver[output] === true) return;
    if (this.#carrier.isBlocked) this.#carrier.later(this);
    else this.#giveCredit(output);
  }

  /** What comes of this output from now on is dropped as it comes. */
  discard(output: Output): void {
    this.#isDiscarded[output] = true;
  }

  /** Gives the request up; onDone or onRefused follows. */
  cancel(): void {
    if (this.#isCancelled || !this.isLive) return;
    this.#isCancelled = true;
    this.discard(1);
    this.discard(2);
    if (this.#isOpen) this.#carrier.send(this.id, frames.CANCEL);
    this.#carrier.cancelled(this);
  }

  // ── The connection's side ────────────────────────────────────────────────────────────────────

  /** Its turn has come. `isSent`: the agent knows of it already; `isStarted`: and its command has begun. */
  begin(id: number, isSent = false, isStarted = false): void {
    this.id = id;
    this.#isOpen = true;
    this.#isStarted = isStarted;
    if (!isSent) this.#carrier.send(id, this.request.type, this.request.payload);
    for (const [type, payload] of this.#early.splice(0)) this.#carrier.send(id, type, payload);
    if (this.#hasEnded) this.#carrier.send(id, frames.END);
    this.#callWriter();
  }

  /** The transport takes more. */
  flush(): void {
    if (!this.isLive) return;
    for (const output of [1, 2] as const) {
      if ((this.#owed[output] ?? 0) >= CREDIT_PIECE && !this.#carrier.isBlocked) this.#giveCredit(output);
    }
    this.#callWriter();
  }

  /** Ends it without the agent's word. */
  lose(error: AgentError): void {
    const events = this.#events;
    this.#events = undefined;
    events?.onLost(error);
  }

  /** Ends it, refused on this side. */
  refuse(errno: number, text: string): void {
    const events = this.#events;
    this.#events = undefined;
    events?.onRefused(errno, text);
  }

  /** True: it was the last frame. Throws AgentError for what the agent may not send. */
  receive(type: number, payload: Buffer): boolean {
    switch (type) {
      case frames.DATA:
        this.#receiveData(1, payload);
        return false;
      case frames.DATA2:
        this.#receiveData(2, payload);
        return false;
      case frames.END:
        this.#receiveEnd(payload);
        return false;
      case frames.CREDIT:
        this.#receiveCredit(payload);
        return false;
      case frames.STARTED:
        this.#receiveStarted(payload);
        return false;
      case frames.CLOSED:
        this.#receiveClosed(payload);
        return false;
      case frames.DONE:
        this.#receiveDone(payload);
        return true;
      case frames.FAILED:
        this.#receiveFailed(payload);
        return true;
      default:
        throw lie(`has sent a frame of the unknown type ${String(type)}`);
    }
  }

  #receiveData(output: Output, bytes: Buffer): void {
    const { outputs, isCommand = false, what } = this.request;
    if (output > outputs) throw lie(`has sent output ${String(output)} where none belongs: ${what}`);
    if (isCommand && !this.#isStarted) throw lie(`has sent output of a command that has not started: ${what}`);
    if (this.#isOver[output] === true) throw lie(`has sent data after their end: ${what}`);
    const granted = this.#granted[output] ?? 0;
    if (bytes.length > granted) {
      throw lie(`has sent ${String(bytes.length)} bytes, the credit is ${String(granted)}: ${what}`);
    }
    this.#granted[output] = granted - bytes.length;
    if (bytes.length === 0) return;
    if (this.#isDiscarded[output] === true || this.#events?.onData === undefined) {
      this.consumed(output, bytes.length);
      return;
    }
    this.#events.onData(output, bytes);
  }

  #receiveEnd(payload: Buffer): void {
    const { outputs, what } = this.request;
    const isSecond = payload.length === 1 && payload[0] === 2;
    if (payload.length !== 0 && !isSecond) throw lie(`has sent an end of an unknown output: ${what}`);
    const output = isSecond ? 2 : 1;
    // With one output for both there is nothing of the second, and its end is no lie.
    if (output > outputs && !(isSecond && this.request.isCommand === true)) {
      throw lie(`has ended output ${String(output)} where none belongs: ${what}`);
    }
    if (this.#isOver[output] === true) throw lie(`has ended an output twice: ${what}`);
    this.#isOver[output] = true;
    if (output <= outputs) this.#events?.onEnd?.(output);
  }

  #receiveCredit(payload: Buffer): void {
    const { hasInput = false, what } = this.request;
    if (payload.length !== 8 || payload.readUInt32LE(0) !== 1)
      throw lie(`has given credit of an unknown kind: ${what}`);
    const bytes = payload.readUInt32LE(4);
    if (!hasInput) throw lie(`has given credit where nothing is sent: ${what}`);
    if (this.#credit + bytes > WINDOW) {
      throw lie(`has given ${String(bytes)} bytes of credit, at most ${String(WINDOW - this.#credit)} fit: ${what}`);
    }
    this.#credit += bytes;
    if (bytes > 0) this.#callWriter();
  }

  #receiveStarted(payload: Buffer): void {
    const { isCommand = false, what } = this.request;
    if (!isCommand) throw lie(`has started what is no command: ${what}`);
    if (this.#isStarted) throw lie(`has started a command twice: ${what}`);
    const pid = payload.length === 4 ? payload.readUInt32LE(0) : 0;
    if (pid < 1 || pid > MAX_PID) throw lie(`has started a command without a process id: ${what}`);
    this.#isStarted = true;
    this.#events?.onStarted?.(pid);
  }

  #receiveClosed(payload: Buffer): void {
    const { isCommand = false, what } = this.request;
    if (!isCommand || payload.length !== 0) throw lie(`has closed an input that is not there: ${what}`);
    if (this.#isInputClosed) return;
    this.#isInputClosed = true;
    this.#events?.onClosed?.();
  }

  #receiveDone(payload: Buffer): void {
    const { isCommand = false, outputs, what } = this.request;
    if (isCommand && !this.#isStarted) throw lie(`has ended a command that has not started: ${what}`);
    for (let output = 1; output <= outputs; output++) {
      if (this.#isOver[output] !== true) throw lie(`has ended a request before its output: ${what}`);
    }
    const events = this.#events;
    this.#events = undefined;
    try {
      events?.onDone(payload);
    } catch (error) {
      if (error instanceof AgentError) events?.onLost(error);
      throw error;
    }
  }

  #receiveFailed(payload: Buffer): void {
    const { what } = this.request;
    if (payload.length < 4 || payload.length > 4 + MAX_FAILED_TEXT) {
      throw lie(
        `has refused a request in ${String(payload.length)} bytes, 4 to ${String(4 + MAX_FAILED_TEXT)} are right: ${what}`,
      );
    }
    this.refuse(payload.readUInt32LE(0), printable(payload.toString("utf8", 4)));
  }

  #giveCredit(output: Output): void {
    const owed = this.#owed[output] ?? 0;
    if (this.#isOver[output] === true) return;
    this.#owed[output] = 0;
    this.#granted[output] = (this.#granted[output] ?? 0) + owed;
    const payload = Buffer.alloc(8);
    payload.writeUInt8(output, 0);
    payload.writeUInt32LE(owed, 4);
    this.#carrier.send(this.id, frames.CREDIT, payload);
  }

  #callWriter(): void {
    if (!this.#wantsToWrite || this.isInputClosed) return;
    if (this.#carrier.isBlocked) {
      this.#carrier.later(this);
      return;
    }
    this.#wantsToWrite = false;
    this.#events?.onWritable?.();
  }
}

/** The guest's words go to terminals: what steers one is taken out. */
function printable(text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, "?");
}
