// Needs: nothing. What the ends of a migration say to each other: whatever comes, it is a frame or the end.
import assert from "node:assert/strict";
import { ConfigError } from "../../vmm/errors.js";
import { addressText, parseMigrationAddress } from "../../vmm/snapshot/migration/address.js";
import {
  encodeHead,
  FrameParser,
  KINDS,
  ProtocolError,
  type Frame,
  type FrameKind,
  type Side,
} from "../../vmm/snapshot/migration/frames.js";
import { caseSeed, Random } from "../fuzz/random.js";

const FROM_SENDER: readonly FrameKind[] = ["hello", "offer", "pages", "zeros", "sync", "state", "commit", "refuse"];
const CASES = 2000;

function stream(frames: readonly Frame[]): Buffer {
  return Buffer.concat(frames.flatMap(({ kind, payload }, index) => [encodeHead(kind, payload, index), payload]));
}

function someFrames(random: Random): Frame[] {
  return Array.from({ length: 1 + (random.u32() % 6) }, () => {
    const kind = FROM_SENDER[random.u32() % FROM_SENDER.length] ?? "hello";
    const length = Math.min(KINDS[kind].maximum, random.u32() % 9000);
    return { kind, payload: Buffer.from(Array.from({ length }, () => random.u32() & 0xff)) };
  });
}

/** Frames that come out of the bytes, cut into pieces; the error that ended it. */
function parse(bytes: Buffer, random: Random, from: Side = "sender"): { frames: Frame[]; error: unknown } {
  const frames: Frame[] = [];
  const parser = new FrameParser(from, (frame) => {
    frames.push({ kind: frame.kind, payload: Buffer.from(frame.payload) });
  });
  try {
    for (let at = 0; at < bytes.length;) {
      const length = 1 + (random.u32() % 5000);
      parser.push(bytes.subarray(at, at + length));
      at += length;
    }
  } catch (error) {
    return { frames, error };
  }
  return { frames, error: undefined };
}

describe("migration: frames", function () {
  this.timeout(20_000);

  it("come out as they went in, however they are cut", () => {
    for (let index = 0; index < 200; index++) {
      const random = new Random(caseSeed(1, index));
      const sent = someFrames(random);
      assert.deepEqual(parse(stream(sent), random), { frames: sent, error: undefined });
    }
  });

  it("one bit changed, bytes lost, doubled or swapped: what was before it comes out, and then the end", () => {
    for (let index = 0; index < CASES; index++) {
      const random = new Random(caseSeed(2, index));
      const sent = someFrames(random);
      const bytes = stream(sent);
      const at = random.u32() % bytes.length;
      const changed = [
        (): Buffer => {
          const copy = Buffer.from(bytes);
          copy[at] = (copy[at] ?? 0) ^ (1 << (random.u32() & 7));
          return copy;
        },
        (): Buffer => Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + 1)]),
        (): Buffer => Buffer.concat([bytes.subarray(0, at), bytes.subarray(Math.max(0, at - 20))]),
      ][random.u32() % 3]?.();
      const { frames, error } = parse(changed ?? bytes, random);
      assert.ok(error === undefined || error instanceof ProtocolError, `seed ${String(index)}: ${String(error)}`);
      assert.ok(frames.length <= sent.length + 1);
      frames.slice(0, -1).forEach((frame, place) => {
        assert.deepEqual(frame, sent[place]);
      });
    }
  });

  it("frames in another order, or twice, are damaged", () => {
    const frames: Frame[] = ["sync", "sync", "commit"].map((kind) => ({
      kind: kind as FrameKind,
      payload: Buffer.alloc(0),
    }));
    const bytes = stream(frames);
    const random = new Random(1);
    assert.equal(parse(bytes, random).frames.length, 3);
    assert.ok(parse(bytes.subarray(16), random).error instanceof ProtocolError);
    assert.ok(parse(Buffer.concat([bytes.subarray(0, 16), bytes]), random).error instanceof ProtocolError);
  });

  it("noise is refused before anything is kept of it", () => {
    for (let index = 0; index < CASES; index++) {
      const random = new Random(caseSeed(3, index));
      const noise = Buffer.from(Array.from({ length: 16 + (random.u32() % 600) }, () => random.u32() & 0xff));
      const { frames, error } = parse(noise, random);
      assert.deepEqual(frames, []);
      // Or it waits for the rest of a frame that is not too long.
      assert.ok(error === undefined || error instanceof ProtocolError, String(error));
    }
  });

  it("each kind has its side and its longest length", () => {
    for (const [kind, { from, maximum }] of Object.entries(KINDS)) {
      for (const side of ["sender", "receiver"] as const) {
        const { frames, error } = parse(encodeHead(kind as FrameKind, Buffer.alloc(0), 0), new Random(1), side);
        if (from === "both" || from === side) assert.equal(frames[0]?.kind, kind);
        else assert.match(String(error), new RegExp(`${kind} comes from the wrong side`));
        const head = encodeHead(kind as FrameKind, Buffer.alloc(0), 0);
        head.writeUInt32LE(maximum + 1, 4);
        if (from !== "both" && from !== side) continue;
        assert.match(String(parse(head, new Random(1), side).error), /bytes; \d+ are allowed/);
      }
    }
  });
});

describe("migration: addresses", () => {
  it("are read, and written as they were", () => {
    for (const text of [
      "unix:/run/a.sock",
      "unix:a:b",
      "tcp:10.0.0.2:7000",
      "tcp:host.example:1",
      "tcp:[fe80::1]:65535",
    ]) {
      assert.equal(addressText(parseMigrationAddress(text)), text);
    }
    assert.deepEqual(parseMigrationAddress("tcp:0.0.0.0:0", { isServer: true }), {
      kind: "tcp",
      host: "0.0.0.0",
      port: 0,
    });
  });

  it("what is none is refused, with the value and what may be", () => {
    const wrong = [
      "",
      "a",
      "/a",
      "unix:",
      "unix:a\0",
      "tcp:",
      "tcp:7000",
      "tcp::7000",
      "tcp:h:0",
      "tcp:h:65536",
      "tcp:h:x",
    ];
    for (const text of [...wrong, "tcp:h:-1", "tcp:[h]:1", "tcp:fe80::1:1", "udp:h:1", "tcp:h:7 "]) {
      assert.throws(
        () => parseMigrationAddress(text),
        (error) => error instanceof ConfigError && error.message.includes(JSON.stringify(text)),
        text,
      );
    }
  });
});
