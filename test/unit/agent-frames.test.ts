// Needs: nothing. Frames of the agent's protocol, and the queue of what has come.
import assert from "node:assert/strict";
import { ByteQueue } from "../../vmm/agent/byte-queue.js";
import { encodeFrame, FrameDecoder, HEADER_BYTES, MAX_PAYLOAD } from "../../vmm/agent/frames.js";
import { Random } from "../fuzz/random.js";
import { textOf } from "../helpers/documents.js";

interface Seen {
  readonly stream: number;
  readonly type: number;
  readonly payload: string;
}

function decodeAll(pieces: readonly Uint8Array[]): Seen[] {
  const seen: Seen[] = [];
  const decoder = new FrameDecoder((stream, type, payload) => {
    seen.push({ stream, type, payload: payload.toString("hex") });
  });
  for (const piece of pieces) decoder.push(piece);
  assert.ok(decoder.isBetweenFrames);
  return seen;
}

/** Numbers by name: what `pattern` finds, a name and a hexadecimal number, in either order. */
function numbersIn(text: string, pattern: RegExp): Record<string, number> {
  const found = [...text.matchAll(pattern)].map(({ groups = {} }) => [groups["name"], Number(groups["number"])]);
  return Object.fromEntries(found.sort(([a = ""], [b = ""]) => (a < b ? -1 : 1))) as Record<string, number>;
}

describe("agent frames", () => {
  it("the document, the guest's side and the host's have the same numbers", () => {
    const document = numbersIn(textOf("docs/agent-protocol.md"), /(?:^\| (?<number>0x\w+) (?<name>[A-Z_0-9]+) \|)/gm);
    const guest = numbersIn(textOf("guest/init/agent/protocol.h"), /\bFRAME_(?<name>\w+) = (?<number>0x\w+)/g);
    const host = numbersIn(textOf("vmm/agent/frames.ts"), /^export const (?<name>\w+) = (?<number>0x\w\w);/gm);
    // In the document it stands with PING.
    assert.deepEqual({ ...document, PONG: 0x03 }, { PONG: 0x03, ...host });
    assert.deepEqual(guest, host);
    assert.ok(Object.keys(host).length > 30);
  });

  const frames: [number, number, Buffer][] = [
    [0, 1, Buffer.alloc(0)],
    [1, 9, Buffer.from("x")],
    [0x7fff_ffff, 255, Buffer.from("hello\0\xff", "latin1")],
    [2, 9, Buffer.alloc(300, 7)],
    [3, 10, Buffer.alloc(0)],
  ];
  const bytes = Buffer.concat(frames.map(([stream, type, payload]) => encodeFrame(stream, type, payload)));
  const expected = frames.map(([stream, type, payload]) => ({ stream, type, payload: payload.toString("hex") }));

  it("any split of the bytes gives the same frames", () => {
    for (let at = 0; at <= bytes.length; at++) {
      assert.deepEqual(decodeAll([bytes.subarray(0, at), bytes.subarray(at)]), expected, `split at ${String(at)}`);
    }
    assert.deepEqual(decodeAll([...bytes].map((byte) => Buffer.from([byte]))), expected);
    const random = new Random(5);
    for (let round = 0; round < 200; round++) {
      const pieces: Buffer[] = [];
      for (let at = 0; at < bytes.length;) {
        const next = Math.min(bytes.length, at + random.below(40));
        pieces.push(bytes.subarray(at, next));
        at = next;
      }
      assert.deepEqual(decodeAll(pieces), expected);
    }
  });

  it("the largest payload passes, one byte more does not, before any of it is there", () => {
    const largest = encodeFrame(1, 9, Buffer.alloc(MAX_PAYLOAD, 1));
    assert.equal(decodeAll([largest])[0]?.payload.length, MAX_PAYLOAD * 2);
    assert.equal(
      decodeAll([largest.subarray(0, 40_000), largest.subarray(40_000)])[0]?.payload.length,
      MAX_PAYLOAD * 2,
    );
    const header = encodeFrame(1, 9);
    header.writeUInt32LE(MAX_PAYLOAD + 1, 0);
    assert.throws(() => decodeAll([header]), {
      code: "ERR_AGENT",
      reason: "protocol",
      message: /65537 bytes, the limit is 65536/,
    });
    header.writeUInt32LE(0xffff_ffff, 0);
    assert.throws(() => decodeAll([header.subarray(0, 3), header.subarray(3)]), { reason: "protocol" });
  });

  it("each of the three zero bytes is checked", () => {
    for (const at of [9, 10, 11]) {
      const frame = encodeFrame(1, 9);
      frame[at] = 1;
      assert.throws(() => decodeAll([frame]), { reason: "protocol", message: /zero bytes/ });
    }
  });

  it("a payload in one piece is not copied", () => {
    const frame = encodeFrame(1, 9, Buffer.alloc(1000, 3));
    const decoder = new FrameDecoder((_stream, _type, payload) => {
      assert.equal(payload.buffer, frame.buffer);
      assert.equal(payload.byteOffset, frame.byteOffset + HEADER_BYTES);
    });
    decoder.push(frame);
  });

  it("a decoder that is stopped from within hands nothing on", () => {
    let count = 0;
    const decoder: FrameDecoder = new FrameDecoder(() => {
      count++;
      decoder.stop();
    });
    decoder.push(bytes);
    assert.equal(count, 1);
  });
});

describe("byte queue", () => {
  it("gives back the bytes in their order, whatever the pieces", () => {
    const random = new Random(1);
    const queue = new ByteQueue();
    const given: Buffer[] = [];
    const taken: Buffer[] = [];
    for (let round = 0; round < 2000; round++) {
      const piece = Buffer.alloc(random.oneIn(10) ? random.below(20_000) : random.below(100), round);
      given.push(piece);
      queue.push(piece);
      if (random.oneIn(3)) taken.push(queue.shift() ?? Buffer.alloc(0));
    }
    for (let piece = queue.shift(); piece !== undefined; piece = queue.shift()) taken.push(piece);
    assert.ok(Buffer.concat(given).equals(Buffer.concat(taken)));
    assert.equal(queue.length, 0);
  });

  it("keeps no more memory than it holds bytes, however small the pieces and large what they are part of", () => {
    const queue = new ByteQueue();
    const around = Buffer.alloc(65_536);
    for (let i = 0; i < 65_536; i++) queue.push(around.subarray(i, i + 1));
    queue.push(around.subarray(0, 5000));
    const memory = new Set<ArrayBufferLike>();
    let length = 0;
    for (let piece = queue.shift(); piece !== undefined; piece = queue.shift()) {
      memory.add(piece.buffer);
      length += piece.length;
    }
    assert.equal(length, 65_536 + 5000);
    assert.ok(!memory.has(around.buffer));
    const held = [...memory].reduce((sum, { byteLength }) => sum + byteLength, 0);
    assert.ok(held <= 2 * length, `${String(held)} bytes for ${String(length)}`);
  });
});
