// The API's socket: connections, requests in the order in which they have come, one at a time, and answers.
import { createServer, type Server, type Socket } from "node:net";
import { listenAtPath } from "../virtio/backends/unix-listener.js";
import { HttpError, HttpParser, type HttpRequest } from "./http-parser.js";

/** At once. */
const MAX_CONNECTIONS = 32;
/** Requests of one connection that are read before they are answered. */
const MAX_AHEAD = 64;
/** A client may take so long over a request that it has begun, `ms`. */
const REQUEST_MS = 60_000;

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
  serve(request: HttpRequest): Promise<Answer>;
  /** What is no request of HTTP, or none that is taken. */
  refused(why: string): void;
}

const REASONS: Readonly<Record<number, string>> = {
  200: "OK",
  204: "No Content",
  400: "Bad Request",
  413: "Payload Too Large",
  500: "Internal Server Error",
  503: "Service Unavailable",
};

export class ApiServer {
  readonly #server: Server;
  readonly #options: ApiServerOptions;
  readonly #removeFile: () => void;
  readonly #sockets = new Set<Socket>();
  /** Settles when all requests so far are answered. */
  #last: Promise<unknown> = Promise.resolve();

  private constructor(server: Server, options: ApiServerOptions) {
    this.#server = server;
    this.#options = options;
    this.#removeFile = listenAtPath(server, { what: "API socket", path: options.path });
    server.on("connection", (socket) => {
      this.#accept(socket);
    });
  }

  /** Throws HostError if there can be no socket at `path`. */
  static listen(options: ApiServerOptions): ApiServer {
    return new ApiServer(createServer({ allowHalfOpen: true }), options);
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
      socket.on("error", () => undefined);
      const answer = { status: 503, body: { fault_message: `There are ${String(MAX_CONNECTIONS)} connections` } };
      socket.end(encode(answer, { keepsAlive: false }));
      socket.destroySoon();
      return;
    }
    this.#sockets.add(socket);
    let isOver = false;
    let ahead = 0;
    const send = (bytes: Buffer, isLast: boolean): void => {
      if (socket.destroyed) return;
      socket.write(bytes);
      if (!isLast) return;
      isOver = true;
      socket.end();
      socket.destroySoon();
    };
    const parser = new HttpParser({
      maxBodyBytes: this.#options.maxBodyBytes,
      expectsContinue: () => {
        send(CONTINUE, false);
      },
      request: (request) => {
        ahead++;
        this.#last = this.#last.then(async () => {
          // A client that has gone has not waited for what it has asked last; what it has asked before is done.
          const answer = await this.#options.serve(request);
          ahead--;
          if (!isOver) send(encode(answer, request), !request.keepsAlive);
          if (ahead < MAX_AHEAD) socket.resume();
        });
        if (ahead >= MAX_AHEAD) socket.pause();
      },
    });
    const refuse = (why: string, status: number): void => {
      this.#options.refused(why);
      // Behind the answers to what was asked before.
      isRefused = true;
      this.#last = this.#last.then(() => {
        if (!isOver) send(encode({ status, body: { fault_message: why } }, { keepsAlive: false }), true);
      });
    };
    let isRefused = false;
    socket.on("data", (bytes) => {
      // What follows something that is not understood is not either.
      if (isOver || isRefused) return;
      try {
        parser.push(bytes);
      } catch (error) {
        if (!(error instanceof HttpError)) throw error;
        refuse(error.message, error.status);
      }
      socket.setTimeout(parser.isAmid ? REQUEST_MS : 0);
    });
    socket.on("timeout", () => socket.destroy());
    socket.on("end", () => {
      // It asks no more, and may wait for answers.
      this.#last = this.#last.then(() => {
        isOver = true;
        socket.end();
      });
    });
    // A client that goes in the middle gets no answer, and that is all.
    socket.on("error", () => undefined);
    socket.on("close", () => {
      isOver = true;
      this.#sockets.delete(socket);
    });
  }
}

const CONTINUE = Buffer.from("HTTP/1.1 100 Continue\r\n\r\n", "latin1");

function encode({ status, body, isDeprecated }: Answer, { keepsAlive }: { readonly keepsAlive: boolean }): Buffer {
  const text = body === undefined ? undefined : Buffer.from(JSON.stringify(body));
  const head = [
    `HTTP/1.1 ${String(status)} ${REASONS[status] ?? ""}`,
    "Server: vmlet",
    `Connection: ${keepsAlive ? "keep-alive" : "close"}`,
    ...(isDeprecated === true ? ["Deprecation: true"] : []),
    ...(text === undefined ? [] : ["Content-Type: application/json"]),
    // RFC 9110 §8.6: none with 204.
    ...(status === 204 ? [] : [`Content-Length: ${String(text?.length ?? 0)}`]),
  ].join("\r\n");
  const begin = Buffer.from(`${head}\r\n\r\n`, "latin1");
  return text === undefined ? begin : Buffer.concat([begin, text]);
}
