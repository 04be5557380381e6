// The API's socket: requests in the order in which they have come, one at a time, and answers. HTTP is Node's own.
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";
import { listenAtPath } from "../virtio/backends/unix-listener.js";

/** At once. */
const MAX_CONNECTIONS = 32;
/** Requests that are read before they are answered. */
const MAX_AHEAD = 64;
/** A client may take so long over a request that it has begun, `ms`. */
const REQUEST_MS = 60_000;
/** Of a request's line and header fields, `bytes`. */
const MAX_HEAD_BYTES = 16 * 1024;

export interface ApiRequest {
  readonly method: string;
  readonly target: string;
  readonly body: Uint8Array;
}

export interface Answer {
  readonly status: number;
  /** JSON. */
  readonly body?: unknown;
  readonly isDeprecated?: boolean;
}

export interface ApiServerOptions {
  readonly path: string;
  readonly maxBodyBytes: number;
  /** Never rejects. */
  serve(request: ApiRequest): Promise<Answer>;
  /** What is no request of HTTP, or none that is taken. */
  refused(why: string): void;
}

export class ApiServer {
  readonly #server: Server;
  readonly #options: ApiServerOptions;
  readonly #removeFile: () => void;
  readonly #sockets = new Set<Socket>();
  /** Read and not yet answered. */
  #ahead = 0;
  /** Settles when all requests so far are answered. */
  #last: Promise<unknown> = Promise.resolve();

  private constructor(options: ApiServerOptions) {
    this.#options = options;
    // Clients of a Unix socket need not name a host, and keep a connection for as long as they like.
    this.#server = createServer({
      maxHeaderSize: MAX_HEAD_BYTES,
      requestTimeout: REQUEST_MS,
      keepAliveTimeout: 0,
      requireHostHeader: false,
    });
    // A client that has asked may close its end and wait for the answer.
    Object.assign(this.#server, { httpAllowHalfOpen: true });
    this.#server.on("connection", (socket) => {
      this.#accept(socket);
    });
    this.#server.on("request", (request, response) => {
      void this.#read(request, response);
    });
    this.#server.on("clientError", (error: NodeJS.ErrnoException, socket) => {
      this.#refuse(error, socket);
    });
    this.#removeFile = listenAtPath(this.#server, { what: "API socket", path: options.path });
  }

  /** Throws HostError if there can be no socket at `path`. */
  static listen(options: ApiServerOptions): ApiServer {
    return new ApiServer(options);
  }

  /** Resolves once what was asked so far is answered and its answers are on their way. */
  async settled(): Promise<void> {
    await this.#last;
  }

  /** The socket's file is gone when this returns. */
  close(): void {
    this.#removeFile();
    this.#server.close();
    for (const socket of this.#sockets) socket.destroySoon();
  }

  /** The process is about to die: nobody is answered any more. */
  abort(): void {
    this.#removeFile();
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
  }

  #accept(socket: Socket): void {
    if (this.#sockets.size >= MAX_CONNECTIONS) {
      socket.end(rawAnswer("503 Service Unavailable", `There are ${String(MAX_CONNECTIONS)} connections`));
      socket.destroySoon();
      return;
    }
    this.#sockets.add(socket);
    socket.on("close", () => this.#sockets.delete(socket));
  }

  async #read(request: IncomingMessage, response: ServerResponse): Promise<void> {
    this.#flow(1);
    // It has its turn once its body is there: one that never comes holds up nobody.
    const body = await this.#bodyOf(request);
    if (body !== undefined) this.#last = this.#last.then(() => this.#answer(request, body, response));
    await this.#last;
    this.#flow(-1);
  }

  /** Undefined if the client has gone in the middle. */
  async #bodyOf(request: IncomingMessage): Promise<Buffer | TooLong | undefined> {
    const { maxBodyBytes } = this.#options;
    const announced = Number(request.headers["content-length"] ?? 0);
    if (announced > maxBodyBytes) return { bytes: announced };
    const parts: Buffer[] = [];
    let bytes = 0;
    try {
      for await (const part of request.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
        bytes += part.length;
        if (bytes > maxBodyBytes) return { bytes };
        parts.push(part);
      }
    } catch {
      return undefined;
    }
    return Buffer.concat(parts);
  }

  async #answer(request: IncomingMessage, body: Buffer | TooLong, response: ServerResponse): Promise<void> {
    if (!Buffer.isBuffer(body)) {
      const why = `A body of ${String(body.bytes)} bytes is longer than the limit of ${String(this.#options.maxBodyBytes)}`;
      this.#options.refused(why);
      response.shouldKeepAlive = false;
      send(response, { status: 400, body: { fault_message: why } });
      return;
    }
    const { method = "", url: target = "" } = request;
    send(response, await this.#options.serve({ method, target, body }));
  }

  /** What is no request: an answer behind those to what was asked before, and the end of the connection. */
  #refuse(error: NodeJS.ErrnoException, socket: Duplex): void {
    if (error.code === "ECONNRESET" || !socket.writable) {
      socket.destroy();
      return;
    }
    const why = whyRefused(error);
    this.#options.refused(why);
    // Requests that have come whole have their turn by then.
    setImmediate(() => {
      this.#last = this.#last.then(() => {
        if (!socket.writable) return;
        socket.end(rawAnswer("400 Bad Request", why), () => socket.destroy());
      });
    });
  }

  /** Clients that ask faster than they are answered are read no further. */
  #flow(requests: 1 | -1): void {
    this.#ahead += requests;
    for (const socket of this.#sockets) {
      if (this.#ahead >= MAX_AHEAD) socket.pause();
      else if (socket.isPaused()) socket.resume();
    }
  }
}

interface TooLong {
  readonly bytes: number;
}

function whyRefused({ code, message }: NodeJS.ErrnoException): string {
  if (code === "HPE_HEADER_OVERFLOW") return `The head of a request is longer than ${String(MAX_HEAD_BYTES)} bytes`;
  if (code === "ERR_HTTP_REQUEST_TIMEOUT") return `A request is not there after ${String(REQUEST_MS / 1000)} s`;
  return `What has come is no request of HTTP/1.1: ${message}`;
}

function send(response: ServerResponse, { status, body, isDeprecated }: Answer): void {
  response.sendDate = false;
  response.setHeader("Server", "vmlet");
  if (isDeprecated === true) response.setHeader("Deprecation", "true");
  const text = body === undefined ? undefined : JSON.stringify(body);
  if (text !== undefined) {
    response.setHeader("Content-Type", "application/json");
    response.setHeader("Content-Length", Buffer.byteLength(text));
  }
  response.writeHead(status);
  response.end(text);
}

/** For a connection of which nothing more is understood. */
function rawAnswer(status: string, fault: string): string {
  const body = JSON.stringify({ fault_message: fault });
  const length = String(Buffer.byteLength(body));
  return `HTTP/1.1 ${status}\r\nServer: vmlet\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: ${length}\r\n\r\n${body}`;
}
