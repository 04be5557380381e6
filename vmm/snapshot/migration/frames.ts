// What the two ends of a migration say to each other: frames, each with its kind, length and checksum. Either end may be
// anybody: a frame of an unknown kind, from the wrong side, too long or damaged ends the connection.
//   kind u8, 3 bytes of 0, length u32, checksum 8 bytes, then as many bytes as the length says; little endian
// The checksum is the start of a SHA-256 over the frame's number on its way, the first 8 bytes of the head, and the rest.
import { createHash } from "node:crypto";

/** Counts up when an end can no longer speak with the one before. */
export const MIGRATION_VERSION = 2;
export const MIGRATION_FORMAT = "vmlet migration";

export type Side = "sender" | "receiver";

interface Kind {
  readonly code: number;
  readonly from: Side | "both";
  /** `bytes` */
  readonly maximum: number;
}

const KIB = 1024;
const MIB = 1024 * KIB;
/** Pages of a frame, `bytes`; an offset goes before them. */
export const MAX_PAGES_BYTES = MIB;
export const OFFSET_BYTES = 8;

export const KINDS = {
  /** JSON: format and version. */
  hello: { code: 1, from: "both", maximum: 4 * KIB },
  /** JSON: what the guest needs, before anything of it comes. */
  offer: { code: 2, from: "sender", maximum: MIB },
  /** The guest may come. */
  ready: { code: 3, from: "receiver", maximum: 0 },
  /** Offset in memory, whole pages. */
  pages: { code: 4, from: "sender", maximum: OFFSET_BYTES + MAX_PAGES_BYTES },
  /** Offset and length of pages that have become zero. */
  zeros: { code: 5, from: "sender", maximum: 2 * OFFSET_BYTES },
  /** Asks for `synced` once all before it is in memory. */
  sync: { code: 6, from: "sender", maximum: 0 },
  synced: { code: 7, from: "receiver", maximum: 0 },
  /** JSON: all that is no memory; the guest rests. */
  state: { code: 8, from: "sender", maximum: 64 * MIB },
  /** All has been checked, and is made: the guest could run. */
  prepared: { code: 9, from: "receiver", maximum: 0 },
  /** The guest is the receiver's. */
  commit: { code: 10, from: "sender", maximum: 0 },
  /** Sent before the guest's first instruction there. */
  running: { code: 11, from: "receiver", maximum: 0 },
  /** Text: why it comes to nothing. */
  refuse: { code: 12, from: "both", maximum: 4 * KIB },
} as const satisfies Readonly<Record<string, Kind>>;

export type FrameKind = keyof typeof KINDS;

export interface Frame {
  readonly kind: FrameKind;
  readonly payload: Buffer;
}

/** The other end does not keep to this. */
export class ProtocolError extends Error {}

const HEAD_BYTES = 16;
const CHECKED_BYTES = 8;
const NAMES = new Map<number, FrameKind>(
  (Object.entries(KINDS) as [FrameKind, Kind][]).map(([name, { code }]) => [code, name]),
);

/** The head of frame number `sequence`; the payload follows it. */
export function encodeHead(kind: FrameKind, payload: Uint8Array, sequence: number): Buffer {
  const head = Buffer.alloc(HEAD_BYTES);
  head.writeUInt8(KINDS[kind].code, 0);
  head.writeUInt32LE(payload.length, 4);
  checksum(head, payload, sequence).copy(head, CHECKED_BYTES);
  return head;
}

function checksum(head: Buffer, payload: Uint8Array, sequence: number): Buffer {
  const number = Buffer.alloc(4);
  number.writeUInt32LE(sequence >>> 0);
  const hash = createHash("sha256").update(number).update(head.subarray(0, CHECKED_BYTES)).update(payload);
  return hash.digest().subarray(0, HEAD_BYTES - CHECKED_BYTES);
}

interface Head {
  readonly bytes: Buffer;
  readonly kind: FrameKind;
  readonly length: number;
}

/** Makes frames of what comes from the `from` side, in pieces of any length. */
export class FrameParser {
  readonly #from: Side;
  readonly #heard: (frame: Frame) => void;
  #sequence = 0;
  #chunks: Buffer[] = [];
  #length = 0;
  #head: Head | undefined;

  constructor(from: Side, heard: (frame: Frame) => void) {
    this.#from = from;
    this.#heard = heard;
  }

  /** Throws ProtocolError; nothing may come after that. */
  push(chunk: Buffer): void {
    this.#chunks.push(chunk);
    this.#length += chunk.length;
    for (;;) {
      if (this.#head === undefined) {
        if (this.#length < HEAD_BYTES) return;
        this.#head = this.#readHead(this.#take(HEAD_BYTES));
      }
      const { bytes, kind, length }: Head = this.#head;
      if (this.#length < length) return;
      const payload = this.#take(length);
      if (!checksum(bytes, payload, this.#sequence).equals(bytes.subarray(CHECKED_BYTES))) {
        throw new ProtocolError(`${kind} is damaged: its checksum is another`);
      }
      this.#sequence++;
      this.#head = undefined;
      this.#heard({ kind, payload });
    }
  }

  #readHead(bytes: Buffer): Head {
    const kind = NAMES.get(bytes.readUInt8(0));
    const isPlain = bytes.readUIntLE(1, 3) === 0;
    if (kind === undefined || !isPlain) throw new ProtocolError("what comes is not vmlet's");
    const { from, maximum }: Kind = KINDS[kind];
    if (from !== "both" && from !== this.#from) throw new ProtocolError(`${kind} comes from the wrong side`);
    const length = bytes.readUInt32LE(4);
    if (length > maximum) {
      throw new ProtocolError(`${kind} of ${String(length)} bytes; ${String(maximum)} are allowed`);
    }
    return { bytes, kind, length };
  }

  #take(length: number): Buffer {
    if (length === 0) return Buffer.alloc(0);
    // A long frame comes in many pieces, which are put together once.
    const [first] = this.#chunks;
    const all = this.#chunks.length === 1 && first !== undefined ? first : Buffer.concat(this.#chunks);
    this.#length -= length;
    this.#chunks = this.#length === 0 ? [] : [all.subarray(length)];
    return all.subarray(0, length);
  }
}
