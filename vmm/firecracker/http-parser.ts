// HTTP/1.1 (RFC 9112) as the clients of this API speak it, on any bytes in any pieces: requests with a body by length or in chunks,
// one after the other on a connection. Everything is limited. Node's own server is not used: to load it takes a third of the time
// from the start of the program to its first answer.

/** What a request and its header fields may have, in `bytes`. */
const MAX_HEAD_BYTES = 16 * 1024;
const MAX_CHUNK_LINE = 1024;

export interface HttpRequest {
  readonly method: string;
  readonly target: string;
  readonly body: Uint8Array;
  /** The connection stays open after the answer. */
  readonly keepsAlive: boolean;
}

export class HttpError extends Error {
  readonly status: number;

  constructor(message: string, status = 400) {
    super(message);
    this.status = status;
  }
}

export interface HttpHandlers {
  request(request: HttpRequest): void;
  /** The client waits to be told that its body is wanted. */
  expectsContinue(): void;
  /** Of metadata and others alike: `bytes`. */
  readonly maxBodyBytes: number;
}

type Stage = "head" | "body" | "chunk-size" | "chunk" | "chunk-end" | "trailers";

interface Head {
  readonly method: string;
  readonly target: string;
  readonly keepsAlive: boolean;
}

const TOKEN = /^[!#$%&'*+\-.^_`|~\dA-Za-z]+$/;
const REQUEST_LINE = /^([!#$%&'*+\-.^_`|~\dA-Za-z]{1,20}) ([\x21-\x7e]+) HTTP\/1\.([01])$/;

/** Reads the requests of one connection. */
export class HttpParser {
  readonly #handlers: HttpHandlers;
  #bytes: Buffer = Buffer.alloc(0);
  #stage: Stage = "head";
  #head: Head | undefined;
  #body: Buffer[] = [];
  #bodyBytes = 0;
  /** Of the body or the chunk that are still to come. */
  #missing = 0;

  constructor(handlers: HttpHandlers) {
    this.#handlers = handlers;
  }

  /** Has begun with a request and not come to its end. */
  get isAmid(): boolean {
    return this.#stage !== "head" || this.#bytes.length > 0;
  }

  /** Throws HttpError for what is no request, or one that is too large: nothing of this connection can be understood any more. */
  push(bytes: Buffer): void {
    this.#bytes = this.#bytes.length === 0 ? bytes : Buffer.concat([this.#bytes, bytes]);
    while (this.#step());
  }

  /** True as long as there is something to go on with. */
  #step(): boolean {
    switch (this.#stage) {
      case "head":
        return this.#readHead();
      case "body":
        if (!this.#readPart()) return false;
        return this.#finish();
      case "chunk-size":
        return this.#readChunkSize();
      case "chunk":
        if (!this.#readPart()) return false;
        this.#stage = "chunk-end";
        return true;
      case "chunk-end": {
        const line = this.#takeLine(MAX_CHUNK_LINE);
        if (line === undefined) return false;
        if (line !== "") throw new HttpError("A chunk of the body is longer than it says");
        this.#stage = "chunk-size";
        return true;
      }
      case "trailers": {
        const line = this.#takeLine(MAX_HEAD_BYTES);
        if (line === undefined) return false;
        return line === "" ? this.#finish() : true;
      }
    }
  }

  #readHead(): boolean {
    // Empty lines before a request are left over from the one before.
    while (this.#bytes.length > 0 && (this.#bytes[0] === 0x0d || this.#bytes[0] === 0x0a)) {
      this.#bytes = this.#bytes.subarray(1);
    }
    const end = headEnd(this.#bytes);
    if (end === undefined) {
      if (this.#bytes.length > MAX_HEAD_BYTES) throw tooLarge();
      return false;
    }
    if (end.start > MAX_HEAD_BYTES) throw tooLarge();
    const [requestLine = "", ...fields] = this.#bytes.toString("latin1", 0, end.start).split(/\r?\n/);
    this.#bytes = this.#bytes.subarray(end.next);
    const [, method = "", target = "", minor] = REQUEST_LINE.exec(requestLine) ?? [];
    if (method === "") throw new HttpError("The request line is not one of HTTP/1.0 or HTTP/1.1");
    this.#begin({ method, target, minor: minor ?? "" }, readFields(fields));
    return true;
  }

  #begin(
    { method, target, minor }: { method: string; target: string; minor: string },
    fields: ReadonlyMap<string, string>,
  ): void {
    const connection = (fields.get("connection") ?? "").toLowerCase();
    const keepsAlive = minor === "1" ? !/\bclose\b/.test(connection) : /\bkeep-alive\b/.test(connection);
    this.#head = { method, target, keepsAlive };
    this.#body = [];
    this.#bodyBytes = 0;
    const length = fields.get("content-length");
    const encoding = fields.get("transfer-encoding");
    if (encoding !== undefined) {
      // Two answers to where a body ends are none.
      if (length !== undefined) throw new HttpError("The body has both a length and an encoding");
      if (encoding.toLowerCase() !== "chunked")
        throw new HttpError(`Transfer-Encoding ${encoding}: only chunked is taken`);
      this.#stage = "chunk-size";
    } else {
      if (length !== undefined && !/^\d{1,15}$/.test(length)) throw new HttpError("Content-Length is not a number");
      this.#missing = Number(length ?? 0);
      this.#checkBody(this.#missing);
      this.#stage = "body";
    }
    const expect = fields.get("expect");
    if (expect === undefined) return;
    if (expect.toLowerCase() !== "100-continue") throw new HttpError(`Expect: ${expect}: only 100-continue is known`);
    if (this.#bytes.length === 0 && (this.#stage !== "body" || this.#missing > 0)) this.#handlers.expectsContinue();
  }

  #checkBody(bytes: number): void {
    const { maxBodyBytes } = this.#handlers;
    if (bytes <= maxBodyBytes) return;
    throw new HttpError(`A body of ${String(bytes)} bytes is longer than the limit of ${String(maxBodyBytes)}`);
  }

  /** Takes what is there of what is missing; true if nothing is any more. */
  #readPart(): boolean {
    const part = this.#bytes.subarray(0, this.#missing);
    this.#bytes = this.#bytes.subarray(part.length);
    this.#missing -= part.length;
    this.#bodyBytes += part.length;
    if (part.length > 0) this.#body.push(part);
    return this.#missing === 0;
  }

  #readChunkSize(): boolean {
    const line = this.#takeLine(MAX_CHUNK_LINE);
    if (line === undefined) return false;
    const [, digits] = /^([\da-fA-F]{1,12})[ \t]*(?:;.*)?$/.exec(line) ?? [];
    if (digits === undefined) throw new HttpError("A chunk of the body has no size");
    this.#missing = Number.parseInt(digits, 16);
    this.#checkBody(this.#bodyBytes + this.#missing);
    this.#stage = this.#missing === 0 ? "trailers" : "chunk";
    return true;
  }

  #takeLine(limit: number): string | undefined {
    const end = this.#bytes.indexOf(0x0a);
    if (end < 0 ? this.#bytes.length > limit : end > limit) throw tooLarge();
    if (end < 0) return undefined;
    const line = this.#bytes.toString("latin1", 0, end).replace(/\r$/, "");
    this.#bytes = this.#bytes.subarray(end + 1);
    return line;
  }

  #finish(): boolean {
    const head = this.#head;
    this.#head = undefined;
    this.#stage = "head";
    const body = Buffer.concat(this.#body);
    this.#body = [];
    if (head !== undefined) this.#handlers.request({ ...head, body });
    return true;
  }
}

function tooLarge(): HttpError {
  return new HttpError(`The head of a request is longer than ${String(MAX_HEAD_BYTES)} bytes`);
}

/** Where the head ends, and where what follows it begins. */
function headEnd(bytes: Buffer): { readonly start: number; readonly next: number } | undefined {
  for (let at = bytes.indexOf(0x0a); at >= 0; at = bytes.indexOf(0x0a, at + 1)) {
    const second = bytes[at + 1] === 0x0d ? at + 2 : at + 1;
    if (bytes[second] !== 0x0a) continue;
    return { start: bytes[at - 1] === 0x0d ? at - 1 : at, next: second + 1 };
  }
  return undefined;
}

/** A field that comes twice is one with both values, but where that would leave two lengths. */
function readFields(lines: readonly string[]): ReadonlyMap<string, string> {
  const fields = new Map<string, string>();
  for (const line of lines) {
    const colon = line.indexOf(":");
    const name = line.slice(0, colon);
    const value = line.slice(colon + 1).trim();
    if (colon < 1 || !TOKEN.test(name) || /[\0\r]/.test(value))
      throw new HttpError("A header field is not NAME: VALUE");
    const key = name.toLowerCase();
    const before = fields.get(key);
    const isSingle = key === "content-length" || key === "transfer-encoding";
    if (before !== undefined && isSingle && before !== value) throw new HttpError(`${name} is given twice`);
    fields.set(key, before === undefined || isSingle ? value : `${before}, ${value}`);
  }
  return fields;
}
