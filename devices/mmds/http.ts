// HTTP/1.1 as far as a client of the metadata service speaks it: requests without a body to speak of, one after the
// other on a connection. RFC 9112.
import type { Session } from "./tcp-connection.js";

export type HttpVersion = "1.0" | "1.1";

export interface HttpRequest {
  readonly method: string;
  /** The path, with its query. */
  readonly path: string;
  /** By their names in lower case; of a name that comes again, the last. */
  readonly headers: ReadonlyMap<string, string>;
}

export interface HttpResponse {
  readonly status: number;
  readonly type: "text/plain" | "application/json";
  readonly body: string;
  readonly headers?: Readonly<Record<string, string>>;
}

/** `bytes` of a request, body included: also what a connection takes before it has answered. */
export const MAX_REQUEST_BYTES = 8192;
const MAX_HEADERS = 64;
const REASONS: Readonly<Record<number, string>> = {
  200: "OK",
  400: "Bad Request",
  401: "Unauthorized",
  404: "Not Found",
  405: "Method Not Allowed",
  413: "Content Too Large",
  501: "Not Implemented",
};

interface Parsed {
  readonly request: HttpRequest;
  readonly version: HttpVersion;
  readonly isLast: boolean;
  /** `bytes` of it. */
  readonly length: number;
}

/** What cannot be a request, and what it is answered with. */
class BadRequest {
  readonly status: number;
  readonly problem: string;

  constructor(status: number, problem: string) {
    this.status = status;
    this.problem = problem;
  }
}

/** One connection's requests and answers. */
export class HttpSession implements Session {
  readonly #answer: (request: HttpRequest) => HttpResponse;
  readonly #bytes = new Uint8Array(MAX_REQUEST_BYTES);
  #length = 0;
  #isOver = false;

  constructor(answer: (request: HttpRequest) => HttpResponse) {
    this.#answer = answer;
  }

  get room(): number {
    return MAX_REQUEST_BYTES - this.#length;
  }

  get isOver(): boolean {
    return this.#isOver;
  }

  take(bytes: Uint8Array): void {
    // After the last answer nobody reads it.
    if (this.#isOver) return;
    this.#bytes.set(bytes, this.#length);
    this.#length += bytes.length;
  }

  nextAnswer(): Uint8Array | undefined {
    if (this.#isOver) return undefined;
    const parsed = parse(this.#bytes.subarray(0, this.#length));
    if (parsed === undefined) return undefined;
    if (parsed instanceof BadRequest) {
      // Where the next one would begin is not known.
      this.#end();
      return encode({ status: parsed.status, type: "text/plain", body: parsed.problem }, "1.1", true);
    }
    const { request, version, isLast, length } = parsed;
    this.#bytes.copyWithin(0, length, this.#length);
    this.#length -= length;
    if (isLast) this.#end();
    return encode(this.#answer(request), version, isLast);
  }

  #end(): void {
    this.#isOver = true;
    this.#length = 0;
  }
}

/** Undefined as long as it is not all there. */
function parse(bytes: Uint8Array): Parsed | BadRequest | undefined {
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  const end = text.indexOf("\r\n\r\n");
  if (end < 0) {
    if (bytes.length < MAX_REQUEST_BYTES) return undefined;
    return new BadRequest(413, `A request has at most ${String(MAX_REQUEST_BYTES)} bytes`);
  }
  const [first = "", ...lines] = text.toString("utf8", 0, end).split("\r\n");
  const [, method = "", target = "", minor = ""] = /^([A-Z]{1,16}) (\S+) HTTP\/1\.([01])$/.exec(first) ?? [];
  if (method === "") return new BadRequest(400, "The first line is not METHOD PATH HTTP/1.1");
  // An absolute address comes from a client that speaks through a proxy.
  const path = target.replace(/^http:\/\/[^/]*/i, "");
  if (lines.length > MAX_HEADERS) return new BadRequest(400, `More than ${String(MAX_HEADERS)} headers`);
  const headers = new Map<string, string>();
  for (const line of lines) {
    const [, name] = /^([!#$%&'*+.^_`|~0-9A-Za-z-]+):/.exec(line) ?? [];
    if (name === undefined) return new BadRequest(400, "A header is not NAME: VALUE");
    headers.set(name.toLowerCase(), line.slice(name.length + 1).trim());
  }
  if (headers.has("transfer-encoding")) return new BadRequest(501, "A body in pieces is not taken");
  const bodyLength = headers.get("content-length") ?? "0";
  if (!/^\d{1,15}$/.test(bodyLength)) return new BadRequest(400, "Content-Length is not a number");
  const length = end + 4 + Number(bodyLength);
  if (length > MAX_REQUEST_BYTES) {
    return new BadRequest(413, `A request has at most ${String(MAX_REQUEST_BYTES)} bytes`);
  }
  if (length > bytes.length) return undefined;
  const version = minor === "0" ? "1.0" : "1.1";
  const connection = (headers.get("connection") ?? "").toLowerCase();
  const isLast = version === "1.0" ? connection !== "keep-alive" : connection === "close";
  return { request: { method, path, headers }, version, isLast, length };
}

function encode({ status, type, body, headers = {} }: HttpResponse, version: HttpVersion, isLast: boolean): Uint8Array {
  const lines = [
    `HTTP/${version} ${String(status)} ${REASONS[status] ?? ""}`,
    "Server: vmlet",
    `Connection: ${isLast ? "close" : "keep-alive"}`,
    `Content-Type: ${type}`,
    `Content-Length: ${String(Buffer.byteLength(body))}`,
    ...Object.entries(headers).map(([name, value]) => `${name}: ${value}`),
  ];
  return Buffer.from(`${lines.join("\r\n")}\r\n\r\n${body}`);
}
