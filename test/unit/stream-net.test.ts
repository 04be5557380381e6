// Needs: nothing. Frames between guest memory and a stream socket, whole or in pieces.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { closeSync, constants, mkdtempSync, openSync, readSync, rmSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Segments } from "../../devices/virtio/segments.js";
import { unguarded } from "../../vmm/virtio/guard.js";
import { StreamNet } from "../../vmm/virtio/backends/stream-net.js";
import { MappedGuestMemory } from "../../vmm/memory/guest-memory.js";
import { MIB } from "../../vmm/memory/layout.js";
import { type PollHandle } from "../../vmm/sys/events.js";
import { streamPair } from "../../vmm/sys/sockets.js";
import { NetDevice } from "../../devices/virtio/net/device.js";
import { FakeLoop } from "../helpers/fake-loop.js";
import { restoreSaved, saveQuiet } from "../helpers/restored.js";
import { virtioMachine } from "../helpers/virtio-machine.js";

const HEADER = 12;
const BUFFERS_GPA = MIB;
const FRAME_GPA = 4 * MIB;

function segments(...ranges: readonly (readonly [gpa: number, length: number])[]): Segments {
  const list = new Segments(64);
  for (const [gpa, length] of ranges) list.append(gpa, length);
  return list;
}

/** Bytes of a frame, none of them 0. */
function bytesOf(length: number, first = 1): Buffer {
  return Buffer.from(Uint8Array.from({ length }, (_, index) => 1 + ((first + index) % 255)));
}

function prefixed(frame: Uint8Array): Buffer {
  const prefix = Buffer.alloc(4);
  prefix.writeUInt32BE(frame.length);
  return Buffer.concat([prefix, frame]);
}

describe("stream network", () => {
  const memory = MappedGuestMemory.map(16 * MIB);
  let peer: number;
  let net: StreamNet;
  let ends: number;
  let isPeerOpen: boolean;
  let watched: (() => void) | undefined;

  beforeEach(() => {
    const [own, other] = streamPair();
    peer = other;
    isPeerOpen = true;
    ends = 0;
    watched = undefined;
    const handle: PollHandle = {
      start: (callback) => (watched = callback),
      stop: () => (watched = undefined),
      close: () => (watched = undefined),
      ref: () => undefined,
      unref: () => undefined,
    };
    const poll = (_: number, callback: () => void): PollHandle => {
      watched = callback;
      return handle;
    };
    net = new StreamNet(own, memory, () => ends++, unguarded, poll);
    memory.slice(BUFFERS_GPA, MIB).fill(0xee);
  });
  afterEach(() => {
    net.close();
    closePeer();
  });
  after(() => memory.unmap());

  function closePeer(): void {
    if (isPeerOpen) closeSync(peer);
    isPeerOpen = false;
  }

  /** What has come at the other end, at most `length` bytes. */
  function take(length: number): Buffer {
    const bytes = Buffer.alloc(length);
    return bytes.subarray(0, readSync(peer, bytes));
  }

  /** A frame of the guest behind its header, in one range. */
  function frame(bytes: Uint8Array): Segments {
    memory.slice(FRAME_GPA, HEADER).fill(0xff);
    memory.slice(FRAME_GPA + HEADER, bytes.length).set(bytes);
    return segments([FRAME_GPA, HEADER + bytes.length]);
  }

  function received(length: number): Buffer {
    return Buffer.from(memory.slice(BUFFERS_GPA, length));
  }

  const BUFFERS = segments([BUFFERS_GPA, 2048]);

  it("sends a frame behind its length and without the driver's header, from one range or many", () => {
    const bytes = bytesOf(100);
    assert.equal(net.send(frame(bytes)), HEADER + 100);
    assert.deepEqual(take(1000), prefixed(bytes));
    const cut = segments([FRAME_GPA, 5], [FRAME_GPA + 5, 20], [FRAME_GPA + 25, HEADER + 100 - 25]);
    assert.equal(net.send(cut), HEADER + 100);
    assert.deepEqual(take(1000), prefixed(bytes));
  });

  it("tells whose address the guest has, and does not break a frame for it", () => {
    const mac = Uint8Array.of(2, 3, 4, 5, 6, 7);
    net.announce(mac);
    const [length, ethernet, arp] = [take(4), take(14), take(1000)];
    assert.equal(length.readUInt32BE(), 42);
    assert.deepEqual([...ethernet], [255, 255, 255, 255, 255, 255, ...mac, 8, 6]);
    const guest = [10, 0, 2, 15];
    assert.deepEqual([...arp], [0, 1, 8, 0, 6, 4, 0, 1, ...mac, ...guest, 0, 0, 0, 0, 0, 0, ...guest]);
    // Until the stream is full; the frame that did not find room is out of step with nothing.
    const large = frame(bytesOf(9000));
    while (net.send(large) > 0);
    net.announce(mac);
    const all: Buffer[] = [];
    for (let tries = 0; tries < 3;) {
      const piece = take(65536);
      all.push(piece);
      if (net.send(large) > 0) tries++;
    }
    net.announce(mac);
    const seen: number[] = [];
    for (let rest = Buffer.concat([...all, take(2 ** 20)]); rest.length > 0;) {
      const whole = rest.readUInt32BE();
      seen.push(whole);
      rest = rest.subarray(4 + whole);
    }
    assert.ok(
      seen.every((one, at) => one === 9000 || (one === 42 && at === seen.length - 1)),
      seen.join(),
    );
    closePeer();
    net.announce(mac);
  });

  it("a length that comes byte by byte is waited for, and so is its frame", () => {
    const bytes = bytesOf(60);
    const stream = Buffer.concat([prefixed(bytes), prefixed(bytesOf(61, 3))]);
    // Cut after every byte of the first length, of the frame and of the next length.
    for (let at = 0; at < stream.length; at++) {
      writeSync(peer, stream.subarray(at, at + 1));
      const expected = at === 63 ? HEADER + 60 : at === stream.length - 1 ? HEADER + 61 : 0;
      assert.equal(net.receive(BUFFERS), expected, String(at));
      if (expected === HEADER + 60) assert.deepEqual(received(HEADER + 60).subarray(HEADER), Buffer.from(bytes));
    }
    assert.deepEqual(received(HEADER + 61).subarray(HEADER), Buffer.from(bytesOf(61, 3)));
    assert.equal(ends, 0);
  });

  it("receives frames one by one, each behind an empty header", () => {
    const frames = [bytesOf(60), bytesOf(1514, 7), bytesOf(61, 9)];
    writeSync(peer, Buffer.concat(frames.map(prefixed)));
    for (const bytes of frames) {
      memory.slice(BUFFERS_GPA, 2048).fill(0xee);
      assert.equal(net.receive(BUFFERS), HEADER + bytes.length);
      assert.deepEqual(received(HEADER + bytes.length), Buffer.concat([Buffer.alloc(HEADER), bytes]));
      assert.equal(memory.slice(BUFFERS_GPA + HEADER + bytes.length, 1)[0], 0xee);
    }
    assert.equal(net.receive(BUFFERS), 0);
    assert.equal(ends, 0);
  });

  it("puts a frame together that comes byte by byte, the header over small ranges", () => {
    const stream = prefixed(bytesOf(70));
    const small = segments([BUFFERS_GPA, 5], [BUFFERS_GPA + 5, 3], [BUFFERS_GPA + 8, 2000]);
    for (const byte of stream.subarray(0, -1)) {
      writeSync(peer, Uint8Array.of(byte));
      assert.equal(net.receive(small), 0);
    }
    writeSync(peer, stream.subarray(-1));
    assert.equal(net.receive(small), HEADER + 70);
    assert.deepEqual(received(HEADER + 70), Buffer.concat([Buffer.alloc(HEADER), bytesOf(70)]));
  });

  it("the end of a frame that finds no room is lost, and told; the next frame is whole", () => {
    writeSync(peer, Buffer.concat([prefixed(bytesOf(1000)), prefixed(bytesOf(80))]));
    const small = segments([BUFFERS_GPA, 500]);
    assert.equal(net.receive(small), HEADER + 1000);
    assert.equal(memory.slice(BUFFERS_GPA + 500, 1)[0], 0xee);
    assert.equal(net.receive(small), HEADER + 80);
    assert.deepEqual(received(HEADER + 80).subarray(HEADER), bytesOf(80));
  });

  it("a new driver gets no half of a frame that its predecessor has begun", () => {
    const stream = prefixed(bytesOf(200));
    writeSync(peer, stream.subarray(0, 100));
    assert.equal(net.receive(BUFFERS), 0);
    net.setGuestOffloads();
    memory.slice(BUFFERS_GPA, 2048).fill(0xee);
    writeSync(peer, Buffer.concat([stream.subarray(100), prefixed(bytesOf(60, 3))]));
    assert.equal(net.receive(BUFFERS), HEADER + 60);
    assert.deepEqual(received(HEADER + 60).subarray(HEADER), bytesOf(60, 3));
    assert.equal(memory.slice(BUFFERS_GPA + HEADER + 60, 1)[0], 0xee);
  });

  /** Sends until the socket is full; how many frames went out whole. */
  function fill(bytes: Uint8Array): number {
    for (let frames = 0; ; frames++) {
      const result = net.send(frame(bytes));
      if (result === 0) return frames;
      assert.equal(result, HEADER + bytes.length);
      assert.ok(frames < 10_000);
    }
  }

  it("a socket that is full: try again, and nothing is lost or torn", () => {
    const bytes = bytesOf(60_000);
    let sent = fill(bytes);
    let stream = Buffer.alloc(0);
    for (let rounds = 0; rounds < 50; rounds++) {
      stream = Buffer.concat([stream, take(10_000)]);
      if (net.send(frame(bytes)) > 0) sent++;
    }
    while (stream.length < sent * (4 + 60_000)) stream = Buffer.concat([stream, take(100_000)]);
    for (let index = 0; index < sent; index++) {
      const at = index * (4 + 60_000);
      assert.ok(stream.subarray(at, at + 4 + 60_000).equals(prefixed(bytes)), `frame ${String(index)}`);
    }
    assert.ok(sent > 5);
  });

  it("a length that is written in pieces comes whole", () => {
    // A pipe that has room for some of its bytes alone; a socket takes four bytes or none.
    const folder = mkdtempSync(join(tmpdir(), "vmlet-test-"));
    const path = join(folder, "pipe");
    execFileSync("mkfifo", [path]);
    for (const room of [1, 2, 3]) {
      const own = openSync(path, constants.O_RDWR | constants.O_NONBLOCK);
      const other = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
      const narrow = new StreamNet(
        own,
        memory,
        () => assert.fail("no end"),
        unguarded,
        () => assert.fail("no watch"),
      );
      const filler = writeSync(own, Buffer.alloc(65_536 - room));
      assert.equal(filler, 65_536 - room);
      // The pipe fills its last page up if what is beyond whole pages has room there.
      const bytes = bytesOf(2 * 4096 + room - 4);
      assert.equal(narrow.send(frame(bytes)), 0);
      const stream = Buffer.alloc(100_000);
      assert.equal(readSync(other, stream), 65_536, "the pipe has taken a piece of the length");
      assert.equal(narrow.send(frame(bytes)), HEADER + bytes.length);
      const rest = readSync(other, stream, 65_536, 30_000, null);
      assert.deepEqual(stream.subarray(filler, 65_536 + rest), prefixed(bytes));
      narrow.close();
      closeSync(other);
    }
    rmSync(folder, { recursive: true });
  });

  it("a guest that takes back what was begun gets it finished with zeroes, and the stream stays in step", () => {
    const sent = fill(bytesOf(60_000));
    const other = bytesOf(90, 5);
    let stream = Buffer.alloc(0);
    let result = 0;
    while (result === 0) {
      stream = Buffer.concat([stream, take(65_536)]);
      result = net.send(frame(other));
    }
    while (stream.length < (sent + 1) * 60_004 + 94) stream = Buffer.concat([stream, take(65_536)]);
    const begun = stream.subarray(sent * 60_004, (sent + 1) * 60_004);
    assert.equal(begun.readUInt32BE(), 60_000);
    assert.equal(begun.at(-1), 0);
    assert.deepEqual(stream.subarray((sent + 1) * 60_004), prefixed(other));
  });

  it("the other end goes: told once, nothing more comes, and what is sent fails", () => {
    net.watch(() => undefined);
    assert.ok(watched !== undefined);
    closePeer();
    assert.equal(net.receive(BUFFERS), 0);
    assert.equal(net.receive(BUFFERS), 0);
    assert.equal(net.explain(-net.send(frame(bytesOf(60)))), "EPIPE");
    assert.equal(ends, 1);
    net.watch(() => undefined);
    assert.equal(watched, undefined, "an end is readable for ever");
  });

  for (const length of [0, 70_000, 0xffff_ffff]) {
    it(`a length of ${String(length)} is out of step: as if the other end had gone`, () => {
      const prefix = Buffer.alloc(4);
      prefix.writeUInt32BE(length);
      writeSync(peer, Buffer.concat([prefixed(bytesOf(60)), prefix, bytesOf(100)]));
      assert.equal(net.receive(BUFFERS), HEADER + 60);
      assert.equal(net.receive(BUFFERS), 0);
      assert.equal(ends, 1);
    });
  }

  it("frames in the middle of their way are whole after a pause; a device restored from then begins with whole ones", async () => {
    const loop = new FakeLoop();
    const mac = Uint8Array.of(2, 0, 0, 0, 0, 1);
    const device = new NetDevice({ name: "net0", backend: net, mac, loop, report: () => undefined });
    const m = virtioMachine(device, loop, memory);
    const [rxq, txq] = m.driver.start();
    assert.ok(rxq !== undefined && txq !== undefined);
    for (let i = 0; i < 4; i++) rxq.add([{ gpa: BUFFERS_GPA + 2048 * i, length: 2048, writable: true }]);
    m.driver.notify(0);
    const stream = prefixed(bytesOf(100));
    writeSync(peer, stream.subarray(0, 50));
    watched?.();
    const state = await saveQuiet(m);
    assert.equal(watched, undefined, "what comes while the guest rests would be told again and again");
    writeSync(peer, stream.subarray(50));
    m.transport.unquiesce();
    assert.deepEqual(rxq.collect(), [{ id: 0, length: HEADER + 100 }]);
    assert.deepEqual(received(HEADER + 100).subarray(HEADER), bytesOf(100));

    const [own, other] = streamPair();
    const idle: PollHandle = {
      start: () => undefined,
      stop: () => undefined,
      close: () => undefined,
      ref: () => undefined,
      unref: () => undefined,
    };
    const fresh = new StreamNet(
      own,
      memory,
      () => undefined,
      unguarded,
      () => idle,
    );
    try {
      const restored = virtioMachine(
        new NetDevice({ name: "net0", backend: fresh, mac, loop, report: () => undefined }),
        loop,
        memory,
      );
      restoreSaved(restored, state);
      memory.slice(BUFFERS_GPA, 2048).fill(0);
      const announced = Buffer.alloc(100);
      assert.equal(readSync(other, announced), 46, "the network learns of its address");
      assert.deepEqual([...announced.subarray(10, 16)], [...mac]);
      writeSync(other, prefixed(bytesOf(70, 9)));
      restored.transport.unquiesce();
      assert.deepEqual(received(HEADER + 70).subarray(HEADER), bytesOf(70, 9));
    } finally {
      fresh.close();
      closeSync(other);
    }
  });
});
