// --control SOCKET: what may be changed while a guest runs, by programs that may open the socket. A line of
// JSON each way: {"balloon_mib":64} and {"ok":true}, or {"error":"…"} if it cannot be.
import { createServer, type Server, type Socket } from "node:net";
import { listenAtPath } from "../virtio/backends/unix-listener.js";
import { ConfigError } from "../errors.js";

/** Of a line, `bytes`. */
const MAX_REQUEST_BYTES = 4096;
/** `ms` that a client may take over its line. */
const REQUEST_TIMEOUT_MS = 5000;
/** Nobody but the owner (and root) connects to a socket that only the owner may write to. */
const OWNER_ONLY_UMASK = 0o177;

/** Exactly one of its keys. */
export interface ControlRequest {
  readonly balloon_mib: number;
}

export type ControlReply = { readonly ok: true } | { readonly error: string };

/** What a request can change. */
export interface Controlled {
  /** Throws ConfigError for what cannot be. */
  setBalloon(targetMib: number): void;
}

export class ControlServer {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly #vm: Controlled;

  readonly #removeFile: () => void;

  private constructor(server: Server, vm: Controlled, removeFile: () => void) {
    this.#server = server;
    this.#removeFile = removeFile;
    this.#vm = vm;
    server.on("connection", (socket) => this.#serve(socket));
  }

  /** Throws HostError if there can be no socket at `path`. */
  static listen(path: string, vm: Controlled): ControlServer {
    const server = createServer();
    const umask = process.umask(OWNER_ONLY_UMASK);
    try {
      return new ControlServer(server, vm, listenAtPath(server, { what: "control socket", path }));
    } finally {
      process.umask(umask);
    }
  }

  /** The socket file is gone when this returns. */
  close(): void {
    this.#removeFile();
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
  }

  #serve(socket: Socket): void {
    this.#sockets.add(socket);
    socket.setTimeout(REQUEST_TIMEOUT_MS, () => socket.destroy());
    socket.setEncoding("utf8");
    let text = "";
    socket.on("data", (chunk: string) => {
      text += chunk;
      const end = text.indexOf("\n");
      if (end < 0 && text.length < MAX_REQUEST_BYTES) return;
      // One request a connection; the rest is read and dropped, or the connection would not end.
      socket.removeAllListeners("data").resume();
      const reply = end < 0 ? tooLong() : answer(text.slice(0, end), this.#vm);
      socket.end(`${JSON.stringify(reply)}\n`);
    });
    // A client that goes in the middle gets no answer, and that is all.
    socket.on("error", () => undefined);
    socket.on("close", () => this.#sockets.delete(socket));
  }
}

function tooLong(): ControlReply {
  return { error: `A request is a line of at most ${String(MAX_REQUEST_BYTES)} bytes` };
}

/** Exported for tests. */
export function answer(line: string, vm: Controlled): ControlReply {
  let request: unknown;
  try {
    request = JSON.parse(line);
  } catch {
    return { error: `Not JSON: ${line}` };
  }
  const entries = typeof request === "object" && request !== null ? Object.entries(request) : [];
  const [[key, value] = [undefined, undefined], ...more] = entries as [string, unknown][];
  if (key !== "balloon_mib" || more.length > 0) {
    return { error: `Unknown request ${line}; known is {"balloon_mib":NUMBER}` };
  }
  if (typeof value !== "number") return { error: `balloon_mib ${JSON.stringify(value)} is not a number` };
  try {
    vm.setBalloon(value);
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    return { error: error.message };
  }
  return { ok: true };
}
