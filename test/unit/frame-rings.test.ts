// Needs: nothing. Rings in which this process is the driver, and whoever serves them is played by a test.
import assert from "node:assert/strict";
import { NET_RECEIVEQ, NET_TRANSMITQ } from "../../devices/virtio/net/constants.js";
import { Segments } from "../../devices/virtio/segments.js";
import { FrameRings } from "../../vmm/virtio/backends/frame-rings.js";
import { FakeMemory } from "../helpers/fake-memory.js";
import { RingServer } from "../helpers/ring-server.js";

const HEADER = 12;
const LONGEST = HEADER + 65535 + 18;
const RING_SIZE = 16;
const OUT = 0x1000;
const IN = 0x4_0000;

describe("frames through rings of our own", () => {
  let memory: FakeMemory;
  let rings: FrameRings;
  let servers: readonly RingServer[];

  beforeEach(() => {
    memory = new FakeMemory(0x10_0000);
    rings = new FrameRings();
    begin();
  });
  afterEach(() => {
    rings.close();
  });

  function begin(): void {
    rings.begin();
    servers = rings.rings.map(({ ring }) => new RingServer(rings.shared.region, ring));
  }

  const segments = (...ranges: readonly (readonly [gpa: number, length: number])[]): Segments => {
    const list = new Segments(8);
    for (const [gpa, length] of ranges) list.append(gpa, length);
    return list;
  };

  /** A frame comes, behind a header that says over how many buffers it is spread. */
  function arrive(byte: number, length: number, buffers = 1): void {
    const server = servers[NET_RECEIVEQ];
    const chain = server?.take();
    assert.ok(server !== undefined && chain?.isWritable === true, "no buffer");
    chain.bytes.fill(byte, 0, length);
    chain.bytes.set([2, 0, 0, 0, 0, 0, 0, 0, 0, 0, buffers, 0]);
    server.give(chain.index, length);
  }

  it("a frame goes out in one piece, however it lies in the guest; the ring is full until some are taken", () => {
    memory.slice(OUT, HEADER + 60).fill(7);
    memory.slice(OUT + 0x800, 40).fill(8);
    const frame = segments([OUT, HEADER + 60], [OUT + 0x800, 40]);
    const server = servers[NET_TRANSMITQ];
    for (let count = 0; count < 3 * RING_SIZE; count++) {
      assert.ok(rings.send(frame, memory));
      assert.ok(!rings.isSent);
      const chain = server?.take();
      assert.ok(chain !== undefined && !chain.isWritable);
      assert.deepEqual(
        [chain.bytes.length, chain.bytes[0], chain.bytes[HEADER + 59], chain.bytes.at(-1)],
        [112, 7, 7, 8],
      );
      server?.give(chain.index, 0);
      assert.ok(rings.isSent);
    }
    for (let count = 0; count < RING_SIZE; count++) assert.ok(rings.sendOwn(Uint8Array.of(count)));
    assert.ok(!rings.sendOwn(Uint8Array.of(1)) && !rings.send(frame, memory));
    const chain = server?.take();
    assert.deepEqual([...(chain?.bytes ?? [])], [...new Array<number>(HEADER).fill(0), 0]);
    server?.give(chain?.index ?? 0, 0);
    assert.ok(rings.sendOwn(Uint8Array.of(1)));
    assert.ok(!rings.sendOwn(new Uint8Array(LONGEST - HEADER + 1)), "longer than any frame");
  });

  it("a frame comes into the guest's buffers as it is, and its buffer waits for another one", () => {
    const buffers = segments([IN, 100], [IN + 0x1000, 0x1_1000]);
    assert.equal(rings.receive(buffers, memory), 0);
    for (let count = 0; count < 3 * RING_SIZE; count++) {
      arrive(count + 1, 150);
      assert.equal(rings.receive(buffers, memory), 150);
      assert.deepEqual([memory.readU8(IN), memory.readU8(IN + 10)], [2, 1]);
      assert.deepEqual([memory.readU8(IN + 99), memory.readU8(IN + 0x1000 + 49)], [count + 1, count + 1]);
    }
    arrive(9, LONGEST);
    assert.equal(rings.receive(buffers, memory), LONGEST);
    // Buffers that are too short: the answer says so, and nothing else is touched.
    memory.slice(IN, 200).fill(0);
    arrive(5, 150);
    assert.equal(rings.receive(segments([IN, 100]), memory), 150);
    assert.deepEqual([memory.readU8(IN + 99), memory.readU8(IN + 100)], [5, 0]);
  });

  it("nonsense in the used ring is a frame of no more than a buffer, or none", () => {
    const buffers = segments([IN, 0x2_0000]);
    arrive(3, 100, 2);
    arrive(4, 100, 0);
    assert.equal(rings.receive(buffers, memory), 0);
    const chain = servers[NET_RECEIVEQ]?.take();
    chain?.bytes.set([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
    servers[NET_RECEIVEQ]?.give(0xffff_fff0 + (chain?.index ?? 0), 0xffff_ffff);
    assert.ok(rings.receive(buffers, memory) <= 17 * 4096);
    // A count that has run ahead of all buffers is bounded by what is in the ring.
    for (let count = 0; count < 40; count++) servers[NET_RECEIVEQ]?.give(count, 14);
    let frames = 0;
    while (rings.receive(buffers, memory) > 0) frames++;
    assert.ok(frames <= 40);
  });

  it("begins anew with every buffer there, whatever was in the rings", () => {
    rings.sendOwn(Uint8Array.of(1));
    arrive(1, 60);
    begin();
    assert.ok(rings.isSent);
    assert.equal(rings.receive(segments([IN, 0x1000]), memory), 0);
    for (let count = 0; count < RING_SIZE; count++) arrive(count, 60);
    assert.equal(servers[NET_RECEIVEQ]?.take(), undefined);
    assert.equal(servers[NET_TRANSMITQ]?.take(), undefined);
  });
});
