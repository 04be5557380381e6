// Who looks at a VM's own program from another process: any number of them, by frames of the agent's protocol on a Unix
// socket. They send DATA, END, RESIZE and SIGNAL; they get DATA, DATA2
// and, at the program's end, DONE with its exit code, or FAILED with the reason as JSON.
import { createServer, type Server, type Socket } from "node:net";
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
import type { FailureReport } from "./monitor-messages.js";
import { listenForOwner, type BoundSocket } from "../virtio/backends/unix-listener.js";

/** All frames are of it. */
export const ATTACH_STREAM = 1;
const RESIZE_BYTES = 4;
/** A client that takes nothing for so long is dropped where others wait for it, `ms`. */
const SLOW_CLIENT_MS = 30_000;

export interface AttachedProgram {
  /** How many of the bytes it takes now; after fewer than all, `inputRoom` of the server is called. */
  input(bytes: Uint8Array): number;
  endInput(): void;
  resize(rows: number, columns: number): void;
  signal(number: number): void;
}

export interface AttachOptions {
  /** Somebody else takes what the program writes, too: no client may hold it up. */
  readonly hasOtherReaders?: boolean;
  readonly slowClientMs?: number;
}

export class AttachServer {
  readonly #program: AttachedProgram;
  readonly #server: Server;
  readonly #removeFile: () => void;
  readonly #hasOtherReaders: boolean;
  readonly #slowClientMs: number;
  readonly #clients = new Set<AttachedClient>();
  #first: () => void = () => undefined;
  /** Resolves once somebody has attached and said how large its terminal is. */
  readonly firstSize = new Promise<void>((resolve) => (this.#first = resolve));

  private constructor(place: string | BoundSocket, program: AttachedProgram, options: AttachOptions) {
    this.#program = program;
    this.#hasOtherReaders = options.hasOtherReaders ?? false;
    this.#slowClientMs = options.slowClientMs ?? SLOW_CLIENT_MS;
    this.#server = createServer((socket) => {
      this.#serve(socket);
    });
    this.#removeFile = listenForOwner(
      this.#server,
      typeof place === "string" ? { what: "attach socket", path: place } : place,
    );
  }

  /** At a path, or a socket that is there. Throws HostError if there can be none. */
  static listen(place: string | BoundSocket, program: AttachedProgram, options: AttachOptions = {}): AttachServer {
    return new AttachServer(place, program, options);
  }

  /** Calls back once every client has taken it. */
  output(output: 1 | 2, bytes: Uint8Array, done: () => void): void {
    let left = 1;
    const taken = (): void => {
      if (--left === 0) done();
    };
    for (const client of this.#clients) {
      if (client.send(output === 1 ? DATA : DATA2, bytes)) continue;
      left++;
      client.whenTaken(taken);
    }
    taken();
  }

  /** The program takes input again. */
  inputRoom(): void {
    for (const client of this.#clients) client.handOn();
  }

  /** The program has ended: clients get its exit code, and their ends. */
  ended(exitCode: number): void {
    const payload = Buffer.alloc(4);
    payload.writeUInt32LE(exitCode);
    for (const { socket } of this.#clients) socket.end(encodeFrame(ATTACH_STREAM, DONE, payload));
  }

  /** It could not be run: clients get the reason. */
  failed(failure: FailureReport): void {
    const text = Buffer.from(JSON.stringify(failure)).subarray(0, MAX_PAYLOAD);
    for (const { socket } of this.#clients) socket.end(encodeFrame(ATTACH_STREAM, FAILED, text));
  }

  /** Nobody else may attach. */
  close(): void {
    this.#removeFile();
    this.#server.close();
    for (const { socket } of this.#clients) socket.destroySoon();
  }

  #serve(socket: Socket): void {
    const client = new AttachedClient(socket, this.#program, this.#slowClientMs, () => {
      const isAlone = this.#clients.size === 1 && !this.#hasOtherReaders;
      return !isAlone;
    });
    this.#clients.add(client);
    const decoder = new FrameDecoder((stream, type, payload) => {
      if (stream !== ATTACH_STREAM) return;
      client.take(type, payload);
      if (type === RESIZE) this.#first();
    });
    socket.on("data", (bytes) => {
      try {
        decoder.push(bytes);
      } catch {
        // Not a client of ours.
        socket.destroy();
      }
    });
    socket.on("close", () => {
      this.#clients.delete(client);
    });
  }
}

class AttachedClient {
  readonly socket: Socket;
  readonly #program: AttachedProgram;
  readonly #slowMs: number;
  readonly #mayBeDropped: () => boolean;
  /** What it has sent and the program has not taken. */
  #waiting: Buffer = Buffer.alloc(0);
  #hasEnded = false;
  #onTaken: (() => void)[] = [];
  #timer: NodeJS.Timeout | undefined;

  constructor(socket: Socket, program: AttachedProgram, slowMs: number, mayBeDropped: () => boolean) {
    this.socket = socket;
    this.#program = program;
    this.#slowMs = slowMs;
    this.#mayBeDropped = mayBeDropped;
    socket.on("drain", () => {
      this.#taken();
    });
    socket.on("close", () => {
      this.#taken();
    });
    socket.on("error", () => undefined);
  }

  /** False: not taken yet. */
  send(type: number, bytes: Uint8Array): boolean {
    for (let at = 0; at < bytes.length; at += MAX_PAYLOAD) {
      if (!this.socket.writable) return true;
      this.socket.write(encodeFrame(ATTACH_STREAM, type, bytes.subarray(at, at + MAX_PAYLOAD)));
    }
    return !this.socket.writableNeedDrain;
  }

  /** Calls back once all is taken that was sent, or will never be. */
  whenTaken(callback: () => void): void {
    this.#onTaken.push(callback);
    this.#timer ??= setInterval(() => {
      if (this.#mayBeDropped()) this.socket.destroy();
    }, this.#slowMs).unref();
  }

  take(type: number, payload: Buffer): void {
    switch (type) {
      case DATA:
        this.#waiting = this.#waiting.length === 0 ? Buffer.from(payload) : Buffer.concat([this.#waiting, payload]);
        this.handOn();
        return;
      case END:
        this.#hasEnded = true;
        this.handOn();
        return;
      case RESIZE:
        if (payload.length === RESIZE_BYTES) this.#program.resize(payload.readUInt16LE(0), payload.readUInt16LE(2));
        return;
      case SIGNAL:
        if (payload.length > 0) this.#program.signal(payload.readUInt8(0));
        return;
    }
  }

  /** Its input to the program, as far as that takes it; more is read from it after that. */
  handOn(): void {
    if (this.#waiting.length > 0) this.#waiting = this.#waiting.subarray(this.#program.input(this.#waiting));
    if (this.#waiting.length > 0) {
      this.socket.pause();
      return;
    }
    if (this.#hasEnded) {
      this.#hasEnded = false;
      this.#program.endInput();
    }
    this.socket.resume();
  }

  #taken(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
    for (const callback of this.#onTaken.splice(0)) callback();
  }
}
