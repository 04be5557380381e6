// The socket device's backend over Unix sockets, with Firecracker's protocol: a host program
// connects to PATH, writes "CONNECT <port>\n" and gets "OK <host port>\n" once the guest has
// accepted; what the guest connects to is the program that listens at PATH_<port>.
import { createConnection, createServer, Socket, type Server } from "node:net";
import type { HostStream, StreamAcceptor, StreamEvents, VsockBackend } from "../../../devices/virtio/vsock/backend.js";
import { PORT_SUFFIX_BYTES } from "../../host/unix-path.js";
import { processSeal } from "../../sys/process-seal.js";
import { unguarded, type Guard } from "../guard.js";
import { SocketStream } from "./socket-stream.js";
import { listenAtPath } from "./unix-listener.js";

/** `bytes` of "CONNECT 4294967295\n". */
const MAX_GREETING_BYTES = 19;
/** `ms` that a host program has to write its line. */
const GREETING_TIMEOUT_MS = 5000;
/** Connections of host programs, with those that have not written their line. */
const MAX_SOCKETS = 512;
const NEWLINE = 0x0a;
/** VMADDR_PORT_ANY: no port. */
const MAX_PORT = 2 ** 32 - 2;

export class UnixVsock implements VsockBackend {
  readonly path: string;
  /** The VM's; there is none yet when the socket is made. */
  guard: Guard = unguarded;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly #removeFile: () => void;
  #acceptor: StreamAcceptor | undefined;

  private constructor(path: string, server: Server, removeFile: () => void) {
    this.path = path;
    this.#server = server;
    this.#removeFile = removeFile;
    server.on("connection", (socket) => {
      this.guard(() => {
        this.#greet(socket);
      });
    });
  }

  /** Listens at `path`; throws HostError if that cannot be. `report` takes a line for the log. */
  static listen(path: string, report: (line: string) => void): UnixVsock {
    const server = createServer({ allowHalfOpen: true, pauseOnConnect: true });
    server.maxConnections = MAX_SOCKETS;
    server.on("error", (error) => report(`${path}: ${error.message}`));
    const removeFile = listenAtPath(server, { what: "vsock socket", path, suffixBytes: PORT_SUFFIX_BYTES });
    return new UnixVsock(path, server, removeFile);
  }

  accept(acceptor: StreamAcceptor): void {
    this.#acceptor = acceptor;
  }

  connect(port: number, events: StreamEvents): HostStream {
    const socket = processSeal.isSealed
      ? sealedConnection(port)
      : createConnection({ path: `${this.path}_${String(port)}`, allowHalfOpen: true });
    this.#keep(socket);
    const stream = new SocketStream(socket, this.guard);
    stream.attach(events);
    socket.once("connect", () => {
      this.guard(() => {
        stream.flow();
        events.connected();
      });
    });
    return stream;
  }

  /** Closes all connections and removes the socket file. */
  async close(): Promise<void> {
    this.#removeFile();
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }

  #keep(socket: Socket): void {
    this.#sockets.add(socket);
    socket.once("close", () => this.#sockets.delete(socket));
  }

  /** Reads a host program's line, however it comes in pieces, and hands the socket over. */
  #greet(socket: Socket): void {
    this.#keep(socket);
    let greeting = Buffer.alloc(0);
    const timer = setTimeout(() => socket.destroy(), GREETING_TIMEOUT_MS);
    timer.unref();
    const giveUp = (): void => void socket.destroy();
    const onBytes = (bytes: Buffer): void => {
      this.guard(() => {
        onData(bytes);
      });
    };
    const onData = (bytes: Buffer): void => {
      greeting = Buffer.concat([greeting, bytes]);
      const end = greeting.indexOf(NEWLINE);
      if (end < 0 && greeting.length < MAX_GREETING_BYTES) return;
      clearTimeout(timer);
      socket.pause();
      socket.off("data", onBytes);
      socket.off("end", giveUp);
      socket.off("error", giveUp);
      const port = end < 0 ? undefined : connectPort(greeting.toString("latin1", 0, end));
      if (port === undefined) {
        socket.destroy();
        return;
      }
      // What follows the line is data already.
      if (greeting.length > end + 1) socket.unshift(greeting.subarray(end + 1));
      this.#open(port, socket);
    };
    socket.on("data", onBytes);
    socket.once("end", giveUp);
    socket.once("error", giveUp);
    socket.once("close", () => clearTimeout(timer));
    socket.resume();
  }

  #open(port: number, socket: Socket): void {
    const stream = new SocketStream(socket, this.guard);
    const events = this.#acceptor?.open(port, stream);
    if (events === undefined) stream.destroy();
    else stream.attach(events);
  }
}

/** Somebody else has connected it, if that could be: what follows comes in a later turn, as with one's own. */
function sealedConnection(port: number): Socket {
  const fd = processSeal.connection?.(port);
  if (fd === undefined) return new Socket().destroy(new Error(`Nobody listens for port ${String(port)}`));
  const socket = new Socket({ fd, allowHalfOpen: true, readable: true, writable: true }).pause();
  setImmediate(() => {
    // The guest may have let go of it.
    if (!socket.destroyed) socket.emit("connect");
  });
  return socket;
}

/** Port of "CONNECT <port>"; undefined if the line is something else. */
function connectPort(line: string): number | undefined {
  const port = Number(/^CONNECT (\d{1,10})$/.exec(line)?.[1] ?? NaN);
  return port <= MAX_PORT ? port : undefined;
}
