// A request to an API on a Unix socket, as a client of Firecracker's makes it.
import { request, type Agent } from "node:http";

export interface Reply {
  readonly status: number;
  readonly body: Readonly<Record<string, unknown>>;
}

export interface ApiRequest {
  readonly socketPath: string;
  readonly method: string;
  readonly path: string;
  /** Undefined: none; bytes as they are, anything else as JSON. */
  readonly body?: unknown;
  /** Undefined: a connection of its own. */
  readonly agent?: Agent;
  readonly timeoutMs: number;
}

/** Rejects where there is no answer in time. */
export function apiRequest({ socketPath, method, path, body, agent, timeoutMs }: ApiRequest): Promise<Reply> {
  const bytes = body === undefined ? undefined : Buffer.isBuffer(body) ? body : Buffer.from(JSON.stringify(body));
  const headers = bytes === undefined ? {} : { "content-length": bytes.length };
  return new Promise((done, fail) => {
    const sent = request({ socketPath, path, method, agent, headers, timeout: timeoutMs }, (got) => {
      let text = "";
      got.setEncoding("utf8").on("data", (chunk: string) => (text += chunk));
      got.on("end", () => {
        done({ status: got.statusCode ?? 0, body: (text === "" ? {} : JSON.parse(text)) as Reply["body"] });
      });
    });
    sent.on("timeout", () => sent.destroy(new Error(`${method} ${path}: no answer`)));
    sent.on("error", fail);
    sent.end(bytes);
  });
}
