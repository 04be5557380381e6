// The protocol of guest/lab/agent.c: a type byte, a u32 length, that many bytes.
import { randomFillSync } from "node:crypto";
import { ConfigError } from "../errors.js";

export interface Frame {
  readonly type: string;
  readonly payload: Buffer;
}

const HEADER_LENGTH = 5;
/** Of an I frame: less than a serial line buffers for the agent. */
export const MAX_PAYLOAD = 32 * 1024;

/** `bytes` of an X frame, as many as the agent takes. */
const MAX_REQUEST = 2 ** 20;
/** What its counts hold. */
const MAX_WORDS = 2 ** 16 - 1;

export function encodeFrame(type: string, payload: Uint8Array = new Uint8Array()): Buffer {
  const header = Buffer.alloc(HEADER_LENGTH);
  header.write(type, 0, "latin1");
  header.writeUInt32LE(payload.length, 1);
  return Buffer.concat([header, payload]);
}

/** Cuts a stream of bytes into frames. */
export class FrameReader {
  #chunks: Buffer[] = [];
  #length = 0;

  *push(chunk: Buffer): Generator<Frame> {
    this.#chunks.push(chunk);
    this.#length += chunk.length;
    while (this.#length >= HEADER_LENGTH) {
      const header = this.#peek(HEADER_LENGTH);
      const size = header.readUInt32LE(1);
      if (this.#length < HEADER_LENGTH + size) return;
      const bytes = this.#peek(HEADER_LENGTH + size);
      this.#chunks = [bytes.subarray(HEADER_LENGTH + size)];
      this.#length -= HEADER_LENGTH + size;
      yield { type: String.fromCharCode(bytes[0] ?? 0), payload: bytes.subarray(HEADER_LENGTH, HEADER_LENGTH + size) };
    }
  }

  /** At least `length` bytes in one buffer. */
  #peek(length: number): Buffer {
    const [first] = this.#chunks;
    if (first !== undefined && first.length >= length) return first;
    const all = Buffer.concat(this.#chunks);
    this.#chunks = [all];
    return all;
  }
}

export interface CommandRequest {
  readonly argv: readonly (string | Uint8Array)[];
  readonly env: Readonly<Record<string, string>>;
  readonly cwd: string;
  /** Rows and columns of a terminal of its own; undefined for pipes. */
  readonly terminal: { readonly rows: number; readonly columns: number } | undefined;
  /** The vmlet that waits takes it, if there is one. */
  readonly isVmlet?: boolean;
}

const REQUEST_PTY = 1;
const REQUEST_VMLET = 2;
const SEED_BYTES = 64;
/** Of a D frame, its path included. */
const MAX_FILE_PIECE = 512 * 1024;

/** Payload of an X frame: struct request of the agent, then the strings. */
export function encodeRequest({ argv, env, cwd, terminal, isVmlet = false }: CommandRequest): Buffer {
  if (argv.length > MAX_WORDS) {
    throw new ConfigError([`The command has ${String(argv.length)} words, the limit is ${String(MAX_WORDS)}`]);
  }
  const variables = Object.entries(env).map(([name, value]) => `${name}=${value}`);
  const head = Buffer.alloc(10);
  head.writeUInt8((terminal === undefined ? 0 : REQUEST_PTY) | (isVmlet ? REQUEST_VMLET : 0), 0);
  head.writeUInt16LE(terminal?.rows ?? 0, 2);
  head.writeUInt16LE(terminal?.columns ?? 0, 4);
  head.writeUInt16LE(argv.length, 6);
  head.writeUInt16LE(variables.length, 8);
  const strings = [cwd, ...argv, ...variables].flatMap((text) => [Buffer.from(text as string), Buffer.alloc(1)]);
  const request = Buffer.concat([head, ...strings]);
  if (request.length > MAX_REQUEST) {
    throw new ConfigError([
      `The command has ${String(request.length)} bytes with its environment, the limit is ${String(MAX_REQUEST)}`,
    ]);
  }
  return request;
}

export function encodeWindowSize(rows: number, columns: number): Buffer {
  const payload = Buffer.alloc(4);
  payload.writeUInt16LE(rows, 0);
  payload.writeUInt16LE(columns, 2);
  return payload;
}

/** Payload of a T frame, struct begin of guest/lab/begin.h: this host's clock, randomness, how many disks there are. */
export function encodeBegin(disks: number, nowMs = Date.now()): Buffer {
  const payload = Buffer.alloc(16 + SEED_BYTES);
  payload.writeBigInt64LE(BigInt(Math.floor(nowMs / 1000)), 0);
  payload.writeUInt32LE((nowMs % 1000) * 1e6, 8);
  payload.writeUInt32LE(disks, 12);
  randomFillSync(payload, 16);
  return payload;
}

/** Payloads of the D frames that make a file. */
export function* encodeFile(path: string, content: Buffer): Generator<Buffer> {
  const name = Buffer.from(`${path}\0`);
  for (let at = 0; at === 0 || at < content.length; at += MAX_FILE_PIECE) {
    yield Buffer.concat([name, content.subarray(at, at + MAX_FILE_PIECE)]);
  }
}
