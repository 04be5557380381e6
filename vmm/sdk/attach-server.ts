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
import { listenAtPath } from "../virtio/backends/unix-listener.js";

/** All frames are of it. */
export const ATTACH_STREAM = 1;
const OWNER_ONLY_UMASK = 0o177;
const RESIZE_BYTES = 4;
/** A client that takes nothing for so long is dropped: it holds up the program, `ms`. */
const SLOW_CLIENT_MS = 30_000;

export interface AttachedProgram {
  /** How many of the bytes it takes now; after fewer than all, `inputRoom` of the server is called. */
  input(bytes: Uint8Array): number;
  endInput(): void;
  resize(rows: number, columns: number): void;
  signal(number: number): void;
}

export class AttachServer {
  readonly #program: AttachedProgram;
  readonly #server: Server;
  readonly #removeFile: () => void;
  readonly #clients = new Map<Socket, { waiting: Buffer; timer: NodeJS.Timeout | undefined }>();
  #first: () => void = () => undefined;
  /** Resolves once somebody has attached and said how large its terminal is. */
  readonly firstSize = new Promise<void>((resolve) => (this.#first = resolve));

  private constructor(path: string, program: AttachedProgram) {
    this.#program = program;
    this.#server = createServer((socket) => {
      this.#serve(socket);
    });
    const umask = process.umask(OWNER_ONLY_UMASK);
    try {
      this.#removeFile = listenAtPath(this.#server, { what: "attach socket", path });
    } finally {
      process.umask(umask);
    }
  }

  /** Throws HostError if there can be no socket at `path`. */
  static listen(path: string, program: AttachedProgram): AttachServer {
    return new AttachServer(path, program);
  }

  /** Calls back once every client has taken it. */
  output(output: 1 | 2, bytes: Uint8Array, done: () => void): void {
    let left = 1;
    const taken = (): void => {
      if (--left === 0) done();
    };
    for (const [socket, client] of this.#clients) {
      for (let at = 0; at < bytes.length; at += MAX_PAYLOAD) {
        const frame = encodeFrame(ATTACH_STREAM, output === 1 ? DATA : DATA2, bytes.subarray(at, at + MAX_PAYLOAD));
        if (socket.write(frame)) continue;
        left++;
        clearTimeout(client.timer);
        client.timer = setTimeout(() => socket.destroy(), SLOW_CLIENT_MS).unref();
        let isDone = false;
        const over = (): void => {
          if (isDone) return;
          isDone = true;
          clearTimeout(client.timer);
          taken();
        };
        socket.once("drain", over).once("close", over);
      }
    }
    taken();
  }

  /** The program takes input again. */
  inputRoom(): void {
    for (const [socket, client] of this.#clients) {
      const { waiting } = client;
      client.waiting = waiting.subarray(this.#program.input(waiting));
      if (client.waiting.length === 0) socket.resume();
    }
  }

  /** The program has ended: clients get its exit code, and their ends. */
  ended(exitCode: number): void {
    const payload = Buffer.alloc(4);
    payload.writeUInt32LE(exitCode);
    for (const socket of this.#clients.keys()) socket.end(encodeFrame(ATTACH_STREAM, DONE, payload));
  }

  /** It could not be run: clients get the reason. */
  failed(failure: FailureReport): void {
    const text = Buffer.from(JSON.stringify(failure)).subarray(0, MAX_PAYLOAD);
    for (const socket of this.#clients.keys()) socket.end(encodeFrame(ATTACH_STREAM, FAILED, text));
  }

  /** Nobody else may attach. */
  close(): void {
    this.#removeFile();
    this.#server.close();
    for (const socket of this.#clients.keys()) socket.destroySoon();
  }

  #serve(socket: Socket): void {
    this.#clients.set(socket, { waiting: Buffer.alloc(0), timer: undefined });
    const decoder = new FrameDecoder((stream, type, payload) => {
      if (stream === ATTACH_STREAM) this.#take(socket, type, payload);
    });
    socket.on("data", (bytes) => {
      try {
        decoder.push(bytes);
      } catch {
        // Not a client of ours.
        socket.destroy();
      }
    });
    socket.on("error", () => undefined);
    socket.on("close", () => {
      this.#clients.delete(socket);
    });
  }

  #take(socket: Socket, type: number, payload: Buffer): void {
    switch (type) {
      case DATA: {
        const client = this.#clients.get(socket);
        if (client === undefined) return;
        const bytes = client.waiting.length === 0 ? payload : Buffer.concat([client.waiting, payload]);
        client.waiting = Buffer.from(bytes.subarray(this.#program.input(bytes)));
        if (client.waiting.length > 0) socket.pause();
        return;
      }
      case END:
        this.#program.endInput();
        return;
      case RESIZE:
        if (payload.length === RESIZE_BYTES) this.#program.resize(payload.readUInt16LE(0), payload.readUInt16LE(2));
        this.#first();
        return;
      case SIGNAL:
        if (payload.length > 0) this.#program.signal(payload.readUInt8(0));
        return;
    }
  }
}
