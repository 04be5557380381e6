// Frames of the agent's protocol, docs/agent-protocol.md, "Frames": a header of 12 bytes, then the payload.
// What comes from the guest is checked here for its form; what it means is for the connection.
import { AgentError } from "../errors.js";

export const HEADER_BYTES = 12;
/** Largest payload of a frame, `bytes`. */
export const MAX_PAYLOAD = 65_536;
/** Largest stream number that the host may choose. */
export const MAX_STREAM = 0x7fff_ffff;

export const HELLO = 0x01;
export const PING = 0x02;
export const PONG = 0x03;
export const DONE = 0x06;
export const FAILED = 0x07;
export const CANCEL = 0x08;
export const DATA = 0x09;
export const DATA2 = 0x0a;
export const END = 0x0b;
export const CREDIT = 0x0c;
export const CLOSED = 0x0d;
export const EXEC = 0x10;
export const STARTED = 0x11;
export const SIGNAL = 0x12;
export const RESIZE = 0x13;
export const STAT = 0x20;
export const LIST = 0x21;
export const READ = 0x22;
export const WRITE = 0x23;
export const MKDIR = 0x24;
export const REMOVE = 0x25;
export const RENAME = 0x26;
export const LINK = 0x27;
export const READLINK = 0x28;
export const SETATTR = 0x29;
export const MKNOD = 0x2a;
export const WAIT_PORT = 0x30;
export const IDENTITY = 0x31;
export const NETWORK = 0x32;
export const SYNC = 0x33;
export const POWER_OFF = 0x34;
export const MOUNT = 0x35;
export const UMOUNT = 0x36;
export const NETLINK = 0x37;

const TYPE_OFFSET = 8;
const EMPTY = Buffer.alloc(0);

export function encodeHeader(stream: number, type: number, length: number): Buffer {
  const header = Buffer.alloc(HEADER_BYTES);
  header.writeUInt32LE(length, 0);
  header.writeUInt32LE(stream, 4);
  header.writeUInt8(type, TYPE_OFFSET);
  return header;
}

/** A whole frame in one buffer: for what is small. */
export function encodeFrame(stream: number, type: number, payload: Uint8Array = EMPTY): Buffer {
  const frame = Buffer.alloc(HEADER_BYTES + payload.length);
  frame.writeUInt32LE(payload.length, 0);
  frame.writeUInt32LE(stream, 4);
  frame.writeUInt8(type, TYPE_OFFSET);
  frame.set(payload, HEADER_BYTES);
  return frame;
}

/** `payload` may be a view of the bytes that were pushed. */
export type FrameHandler = (stream: number, type: number, payload: Buffer) => void;

/**
 * Cuts a stream of bytes into frames. A payload that lies in one piece is handed on as a view of it; another is put
 * together once, in a buffer of its size, so a guest that sends byte by byte makes no more work than it sends.
 */
export class FrameDecoder {
  readonly #onFrame: FrameHandler;
  /** The first bytes of a header that came in pieces. */
  readonly #header = Buffer.alloc(HEADER_BYTES);
  #headerBytes = 0;
  #stream = 0;
  #type = 0;
  /** What has come of the payload under way. */
  #payload: Buffer | undefined;
  #payloadBytes = 0;
  #isStopped = false;

  constructor(onFrame: FrameHandler) {
    this.#onFrame = onFrame;
  }

  /** Whether the bytes so far end between two frames. */
  get isBetweenFrames(): boolean {
    return this.#headerBytes === 0 && this.#payload === undefined;
  }

  /** Nothing is handed on any more, not even what has been pushed. */
  stop(): void {
    this.#isStopped = true;
    this.#payload = undefined;
  }

  /** Throws AgentError for a frame that cannot be one; nothing may be pushed after that. */
  push(chunk: Uint8Array): void {
    const bytes = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.length);
    let at = 0;
    while (at < bytes.length && !this.#isStopped) {
      at = this.#payload === undefined ? this.#takeHeader(bytes, at) : this.#takePayload(this.#payload, bytes, at);
    }
  }

  /** Takes the header at `at`, and its payload where it is there whole; says where the rest begins. */
  #takeHeader(bytes: Buffer, at: number): number {
    let header = bytes;
    let start = at;
    let next = at + HEADER_BYTES;
    if (this.#headerBytes > 0 || bytes.length < next) {
      const count = Math.min(HEADER_BYTES - this.#headerBytes, bytes.length - at);
      bytes.copy(this.#header, this.#headerBytes, at, at + count);
      this.#headerBytes += count;
      if (this.#headerBytes < HEADER_BYTES) return bytes.length;
      this.#headerBytes = 0;
      header = this.#header;
      start = 0;
      next = at + count;
    }
    const length = this.#readHeader(header, start);
    if (bytes.length - next >= length) {
      this.#onFrame(this.#stream, this.#type, bytes.subarray(next, next + length));
      return next + length;
    }
    this.#payload = Buffer.allocUnsafeSlow(length);
    this.#payloadBytes = 0;
    return next;
  }

  /** Checks the header and keeps it; the length of its payload. */
  #readHeader(header: Buffer, start: number): number {
    const length = header.readUInt32LE(start);
    this.#stream = header.readUInt32LE(start + 4);
    this.#type = header.readUInt8(start + TYPE_OFFSET);
    if (length > MAX_PAYLOAD) {
      throw new AgentError(
        "protocol",
        `The guest's agent has sent a frame of ${String(length)} bytes, the limit is ${String(MAX_PAYLOAD)}`,
      );
    }
    if (header.readUIntLE(start + TYPE_OFFSET + 1, 3) !== 0) {
      throw new AgentError("protocol", "The guest's agent has sent a frame whose zero bytes are not zero");
    }
    return length;
  }

  #takePayload(payload: Buffer, bytes: Buffer, at: number): number {
    const count = Math.min(payload.length - this.#payloadBytes, bytes.length - at);
    bytes.copy(payload, this.#payloadBytes, at, at + count);
    this.#payloadBytes += count;
    if (this.#payloadBytes === payload.length) {
      this.#payload = undefined;
      this.#onFrame(this.#stream, this.#type, payload);
    }
    return at + count;
  }
}
