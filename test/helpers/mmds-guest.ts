// Plays a guest that talks to the metadata service: builds its frames and reads the answers, by hand.
import assert from "node:assert/strict";
import type { MmdsResponder } from "../../devices/mmds/responder.js";
import { ACK, FIN, HEADERS_BYTES, readSegment, RST, SYN, writeSegment, type Segment } from "../../devices/mmds/wire.js";

export const MMDS_ADDRESS = 0xa9fea9fe;
export const GUEST = { mac: Uint8Array.of(2, 0, 0, 0, 0, 7), address: 0xa9fe0102 };
export const MMDS = { mac: Uint8Array.of(6, 1, 0x23, 0x45, 0x67, 1), address: MMDS_ADDRESS };

/** A frame of the guest's. */
export function frameOf(port: number, segment: Partial<Segment>, to = 80): Uint8Array {
  const frame = new Uint8Array(HEADERS_BYTES + 4 + (segment.payload?.length ?? 0));
  return frame.subarray(0, writeSegment(frame, { ...GUEST, port }, { ...MMDS, port: to }, segment));
}

/** All that the service sends now, checked for what every frame must have. */
export function framesFrom(responder: MmdsResponder, limit = 1000): Uint8Array[] {
  const frames: Uint8Array[] = [];
  for (let frame = responder.nextFrame(); frame !== undefined; frame = responder.nextFrame()) {
    assert.ok(frames.length < limit, "it never stops");
    assert.ok(frame.length >= 42 && frame.length <= 1514, String(frame.length));
    frames.push(frame.slice());
  }
  return frames;
}

export function segmentsOf(frames: readonly Uint8Array[]): (Segment & { readonly port: number })[] {
  return frames.map((frame) => {
    const read = readSegment(frame);
    assert.ok(read !== undefined, "not a segment");
    assert.deepEqual([isRight(frame, 14, 34, 0), isTcpRight(frame)], [true, true], "a checksum is wrong");
    return { ...read.segment, payload: read.segment.payload.slice(), port: read.port };
  });
}

/** Ones' complement sum over the range, which a right checksum makes 0xffff: RFC 1071. */
function isRight(bytes: Uint8Array, from: number, to: number, start: number): boolean {
  let sum = start;
  for (let at = from; at < to; at += 2) sum += (bytes[at] ?? 0) * 256 + (at + 1 < to ? (bytes[at + 1] ?? 0) : 0);
  while (sum > 0xffff) sum = (sum % 0x1_0000) + Math.floor(sum / 0x1_0000);
  return sum === 0xffff;
}

function isTcpRight(frame: Uint8Array): boolean {
  let pseudo = 6 + frame.length - 34;
  for (let at = 26; at < 34; at += 2) pseudo += (frame[at] ?? 0) * 256 + (frame[at + 1] ?? 0);
  return isRight(frame, 34, frame.length, pseudo);
}

/** One connection, whose guest's end is right about everything unless a test wants it otherwise. */
export class GuestConnection {
  readonly #responder: MmdsResponder;
  readonly #port: number;
  /** Next byte of the guest's, and next one that it expects. */
  sequence: number;
  expected = 0;
  window = 0xffff;
  /** All that has come. */
  received = "";
  hasEnded = false;
  wasRefused = false;

  constructor(responder: MmdsResponder, port = 40_000, sequence = 0xffff_fff0) {
    this.#responder = responder;
    this.#port = port;
    this.sequence = sequence;
  }

  /** As it is; what comes back is taken and acknowledged, unless `isDeaf`. */
  send(segment: Partial<Segment>): void {
    const frame = {
      sequence: this.sequence,
      acknowledgement: this.expected,
      flags: ACK,
      window: this.window,
      ...segment,
    };
    this.#responder.receive(frameOf(this.#port, frame));
  }

  open(mss?: number): this {
    this.send({ flags: SYN, acknowledgement: 0, mss });
    this.sequence = (this.sequence + 1) >>> 0;
    const [synAck] = this.segments();
    assert.ok(synAck !== undefined, "no answer to a SYN");
    if ((synAck.flags & RST) !== 0) {
      this.wasRefused = true;
      return this;
    }
    assert.deepEqual([synAck.flags, synAck.acknowledgement], [SYN | ACK, this.sequence]);
    this.expected = (synAck.sequence + 1) >>> 0;
    this.send({});
    return this;
  }

  write(text: string | Uint8Array): void {
    const payload = typeof text === "string" ? Buffer.from(text) : text;
    this.send({ payload });
    this.sequence = (this.sequence + payload.length) >>> 0;
  }

  end(): void {
    this.send({ flags: FIN | ACK });
    this.sequence = (this.sequence + 1) >>> 0;
  }

  /** What the service sends to this connection now. */
  segments(): Segment[] {
    return segmentsOf(framesFrom(this.#responder)).filter(({ port }) => port === this.#port);
  }

  /** Takes what comes and acknowledges it, until nothing comes any more. */
  take(): this {
    for (let rounds = 0; ; rounds++) {
      assert.ok(rounds < 1000, "it never stops");
      const segments = this.segments();
      if (segments.length === 0) return this;
      let isNew = false;
      for (const { sequence, flags, payload } of segments) {
        if ((flags & RST) !== 0) this.wasRefused = true;
        if (sequence !== this.expected) continue;
        const length = payload.length + ((flags & FIN) === 0 ? 0 : 1);
        if (length === 0) continue;
        isNew = true;
        this.received += Buffer.from(payload).toString("latin1");
        this.hasEnded ||= (flags & FIN) !== 0;
        this.expected = (this.expected + length) >>> 0;
      }
      if (isNew) this.send({});
    }
  }

  ask(request: string): string {
    this.received = "";
    this.write(request);
    this.take();
    return this.received;
  }
}
