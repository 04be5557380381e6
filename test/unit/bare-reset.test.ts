// Needs: nothing. A refused connection, as old versions of passt tell it, reaches the guest in a way it understands.
import assert from "node:assert/strict";
import { Segments } from "../../devices/virtio/segments.js";
import { acknowledgeReset } from "../../vmm/virtio/backends/bare-reset.js";

const HEADER = 12;

/** A frame of a TCP segment without data, its checksums right. */
function segment({ flags = 0x04, acknowledgment = 0x1234_5679, options = 0 } = {}): Buffer {
  const frame = Buffer.alloc(14 + 20 + 20 + options);
  frame.writeUInt16BE(0x0800, 12);
  const ip = frame.subarray(14, 34);
  ip[0] = 0x45;
  ip.writeUInt16BE(40 + options, 2);
  ip[8] = 64;
  ip[9] = 6;
  ip.set([10, 0, 2, 2, 10, 0, 2, 15], 12);
  const tcp = frame.subarray(34);
  tcp.writeUInt16BE(7, 0);
  tcp.writeUInt16BE(40_000, 2);
  tcp.writeUInt32BE(acknowledgment, 8);
  tcp[12] = ((20 + options) / 4) << 4;
  tcp[13] = flags;
  tcp.fill(1, 20);
  tcp.writeUInt16BE(checksum(frame), 16);
  return frame;
}

/** RFC 9293 §3.1: over the pseudo header and the segment; 0 for one whose checksum is right. */
function checksum(frame: Buffer): number {
  const tcp = frame.subarray(34);
  const words = Buffer.concat([frame.subarray(26, 34), Buffer.from([0, 6, tcp.length >> 8, tcp.length & 0xff]), tcp]);
  let sum = 0;
  for (let at = 0; at < words.length; at += 2) sum += words.readUInt16BE(at);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  return ~sum & 0xffff;
}

/** The frame after it has passed, behind a header, in buffers of these lengths. */
function pass(frame: Buffer, lengths: readonly number[] = [2048]): Buffer {
  const bytes = Buffer.concat([Buffer.alloc(HEADER, 0xee), frame, Buffer.alloc(2048)]);
  const buffers = new Segments(64);
  // Each range starts somewhere else.
  const places = new Map<number, number>();
  let offset = 0;
  lengths.forEach((length, index) => {
    const gpa = 10_000 * (index + 1);
    buffers.append(gpa, length);
    for (let at = 0; at < length; at++) places.set(gpa + at, offset + at);
    offset += length;
  });
  const place = (gpa: number): number => {
    const at = places.get(gpa);
    if (at === undefined) throw new Error(`Nothing is at ${String(gpa)}`);
    return at;
  };
  const memory = {
    readU8: (gpa: number) => bytes[place(gpa)] ?? 0,
    writeU8: (gpa: number, value: number) => void (bytes[place(gpa)] = value),
  };
  acknowledgeReset(memory, buffers, frame.length);
  assert.deepEqual(bytes.subarray(0, HEADER), Buffer.alloc(HEADER, 0xee));
  return bytes.subarray(HEADER, HEADER + frame.length);
}

describe("bare reset", () => {
  it("gets the ACK flag and the checksum that goes with it, however the buffers lie", () => {
    for (const lengths of [
      [2048],
      [HEADER, 2048],
      [20, 30, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2048],
      Array<number>(64).fill(3),
    ]) {
      // Some of the sums carry.
      for (let acknowledgment = 0xfff0; acknowledgment <= 0x1_0010; acknowledgment++) {
        const frame = segment({ acknowledgment });
        assert.equal(checksum(frame), 0);
        const passed = pass(frame, lengths);
        const [flags] = passed.subarray(47);
        assert.equal(flags, 0x14);
        assert.equal(checksum(passed), 0, String(acknowledgment));
        passed[47] = 0x04;
        frame.copy(passed, 50, 50, 52);
        assert.deepEqual(passed, frame);
      }
    }
    assert.equal(pass(segment({ options: 40 }))[47], 0x14);
  });

  it("its checksum carries, where it is about to run over", () => {
    const first = segment({ acknowledgment: 1 }).readUInt16BE(50);
    for (let before = 0; before <= 0x20; before++) {
      // The sum grows with the number, and the checksum shrinks.
      const frame = segment({ acknowledgment: 1 + first - before });
      assert.equal(frame.readUInt16BE(50), before);
      assert.equal(checksum(pass(frame)), 0, String(before));
    }
  });

  it("everything else stays as it is", () => {
    const other = segment();
    other.writeUInt16BE(0x86dd, 12);
    const udp = segment();
    udp[23] = 17;
    const ipOptions = segment();
    ipOptions[14] = 0x46;
    for (const frame of [
      ...[0x00, 0x02, 0x10, 0x11, 0x12, 0x14, 0x0c, 0x24].map((flags) => segment({ flags })),
      segment({ acknowledgment: 0 }),
      segment({ options: 44 }),
      segment().subarray(0, 53),
      other,
      udp,
      ipOptions,
    ]) {
      assert.deepEqual(pass(frame), Buffer.from(frame));
    }
    const cut = segment();
    assert.deepEqual(pass(cut, [HEADER + 53]), cut);
    // Ranges of a longer list before are none of this one's.
    const buffers = new Segments(64);
    buffers.append(0, HEADER + 53);
    buffers.append(5000, 100);
    buffers.clear();
    buffers.append(0, HEADER + 53);
    const never = (gpa: number): never => assert.fail(`Nothing is at ${String(gpa)}`);
    acknowledgeReset({ readU8: never, writeU8: never }, buffers, cut.length);
  });
});
