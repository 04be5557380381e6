// The other end of attach-server.ts.
import type { Socket } from "node:net";
import {
  DATA,
  DATA2,
  DONE,
  encodeFrame,
  END,
  FAILED,
  FrameDecoder,
  MAX_PAYLOAD,
  RESIZE,
  SIGNAL,
} from "../agent/frames.js";
import { HostError } from "../errors.js";
import { ATTACH_STREAM } from "./attach-server.js";
import { connectAt } from "./connect-at.js";
import { errorOf, readFailure, type FailureReport } from "./monitor-messages.js";

export interface AttachHandlers {
  /** Calls `done` once it has been written. */
  output(output: 1 | 2, bytes: Buffer, done: () => void): void;
  /** The program takes more input, after `input` has answered false. */
  inputRoom?(): void;
}

export class AttachClient {
  readonly #socket: Socket;
  readonly #handlers: AttachHandlers;
  #exitCode: number | undefined;
  #failure: FailureReport | undefined;
  #writing = 0;
  /** The exit code; undefined if the connection has ended without one. Rejects if the program could not be run. */
  readonly ended: Promise<number | undefined>;

  private constructor(socket: Socket, handlers: AttachHandlers) {
    this.#socket = socket;
    this.#handlers = handlers;
    const decoder = new FrameDecoder((stream, type, payload) => {
      if (stream === ATTACH_STREAM) this.#take(type, payload);
    });
    socket.on("data", (bytes) => {
      try {
        decoder.push(bytes);
      } catch {
        socket.destroy();
      }
    });
    socket.on("drain", () => handlers.inputRoom?.());
    socket.on("error", () => undefined);
    this.ended = new Promise((resolve, reject) => {
      socket.on("close", () => {
        if (this.#failure === undefined) resolve(this.#exitCode);
        else reject(errorOf(this.#failure));
      });
    });
    this.ended.catch(() => undefined);
  }

  /** Rejects with HostError where nobody answers. */
  static async connect(path: string, handlers: AttachHandlers): Promise<AttachClient> {
    const socket = await connectAt(
      path,
      (why, cause) => new HostError(`The VM's program cannot be attached to: ${why}`, { cause }),
    );
    return new AttachClient(socket, handlers);
  }

  /** False: no more for now, please, until `inputRoom`. */
  input(bytes: Uint8Array): boolean {
    let takesMore = true;
    for (let at = 0; at < bytes.length; at += MAX_PAYLOAD) {
      takesMore = this.#send(DATA, bytes.subarray(at, at + MAX_PAYLOAD));
    }
    return takesMore;
  }

  endInput(): void {
    this.#send(END);
  }

  resize(rows: number, columns: number): void {
    const payload = Buffer.alloc(4);
    payload.writeUInt16LE(rows, 0);
    payload.writeUInt16LE(columns, 2);
    this.#send(RESIZE, payload);
  }

  signal(number: number): void {
    this.#send(SIGNAL, Buffer.of(number, 0, 0, 0));
  }

  /** Sends no more; `ended` follows. The program goes on. */
  end(): void {
    this.#socket.end();
    this.#socket.resume();
  }

  /** Looks no more; the program goes on. */
  detach(): void {
    this.#socket.destroy();
  }

  #send(type: number, payload?: Uint8Array): boolean {
    return this.#socket.writable && this.#socket.write(encodeFrame(ATTACH_STREAM, type, payload));
  }

  #take(type: number, payload: Buffer): void {
    if (type === FAILED) {
      this.#failure = readFailure(payload.toString("utf8"));
      return;
    }
    if (type === DONE) {
      this.#exitCode = payload.length === 4 ? payload.readUInt32LE(0) : undefined;
      return;
    }
    if (type !== DATA && type !== DATA2) return;
    this.#writing++;
    this.#socket.pause();
    this.#handlers.output(type === DATA ? 1 : 2, payload, () => {
      if (--this.#writing === 0) this.#socket.resume();
    });
  }
}
