// Needs: nothing. A network by vhost-user, at whose other end a test answers, says nothing, answers nonsense, or goes.
import assert from "node:assert/strict";
import { closeSync, openSync, readSync, writeSync } from "node:fs";
import {
  VIRTIO_F_VERSION_1,
  VIRTIO_RING_F_EVENT_IDX,
  VIRTIO_RING_F_INDIRECT_DESC,
} from "../../devices/virtio/constants.js";
import { featureSet } from "../../devices/virtio/features.js";
import { VIRTIO_NET_F_MAC, VIRTIO_NET_F_MRG_RXBUF } from "../../devices/virtio/net/constants.js";
import { Segments } from "../../devices/virtio/segments.js";
import { MappedGuestMemory } from "../../vmm/memory/guest-memory.js";
import { MIB } from "../../vmm/memory/layout.js";
import { EOPNOTSUPP, EPIPE } from "../../vmm/sys/errno.js";
import { hasInput } from "../../vmm/sys/messages.js";
import { sharedMemory } from "../../vmm/sys/shared-memory.js";
import { streamPair } from "../../vmm/sys/sockets.js";
import { unguarded } from "../../vmm/virtio/guard.js";
import { launchVhostUser } from "../../vmm/virtio/backends/vhost-user-process.js";
import { ringStateMessage } from "../../vmm/virtio/backends/vhost-user-messages.js";
import { VhostUserNet } from "../../vmm/virtio/backends/vhost-user-net.js";

const KNOWN = featureSet(VIRTIO_F_VERSION_1, VIRTIO_NET_F_MRG_RXBUF);
const CHOSEN = KNOWN | featureSet(VIRTIO_NET_F_MAC);
const QUEUE = { size: 8, descriptorGpa: 0x1000, availableGpa: 0x2000, usedGpa: 0x3000, nextAvailable: 5 };
const GET_VRING_BASE = 11;

describe("vhost-user: a network", () => {
  let memory: MappedGuestMemory;
  let net: VhostUserNet;
  let other = -1;
  let kill: () => boolean;
  let connected: string[];
  let ended: string[];

  beforeEach(() => {
    memory = MappedGuestMemory.mapShared(sharedMemory("test", MIB), MIB);
    const [own, theirs] = streamPair();
    other = theirs;
    // Some process: what it would say is said by the test.
    const command = { name: "passt", argv: ["sleep", "1000"], noise: /^$/ };
    const server = launchVhostUser(command, own, openSync("/dev/null", "r"));
    kill = () => server.process.kill(0);
    connected = [];
    ended = [];
    net = new VhostUserNet(server, KNOWN, {
      memory,
      guard: unguarded,
      events: {
        connectKick: (queueIndex) => connected.push(`kick ${String(queueIndex)}`),
        connectInterrupt: (queueIndex) => connected.push(`interrupt ${String(queueIndex)}`),
      },
      ended: (why) => ended.push(why),
    });
  });
  afterEach(() => {
    net.close();
    if (other >= 0) closeSync(other);
    other = -1;
    memory.unmap();
  });

  /** Numbers of the requests that have come, those of a queue with its index. */
  function requests(): string[] {
    const bytes = Buffer.alloc(16_384);
    let length = 0;
    // A read ends where descriptors came.
    while (hasInput(other)) length += readSync(other, bytes, length, bytes.length - length, null);
    const view = bytes.subarray(0, length);
    const names: string[] = [];
    for (let at = 0; at < view.length;) {
      const [request, size] = [view.readUInt32LE(at), view.readUInt32LE(at + 8)];
      names.push(request < 8 ? String(request) : `${String(request)}:${String(view.readUInt8(at + 12))}`);
      at += 12 + size;
    }
    return names;
  }

  function answer(queueIndex: number, request = GET_VRING_BASE): void {
    const reply = ringStateMessage(request, queueIndex, 0);
    reply[4] = 5;
    writeSync(other, reply);
  }

  const frame = (): Segments => {
    const segments = new Segments(1);
    segments.append(0x8000, 12 + 60);
    return segments;
  };
  const ring = (index: number): string[] =>
    [8, 10, 9, 13, 12, 18].map((request) => `${String(request)}:${String(index)}`);
  const limit = 5000;

  it("gives it the guest's memory and its own, then the guest's queues, which it has to leave before anybody else has them", () => {
    assert.deepEqual(requests(), ["5"]);
    assert.equal(net.start(CHOSEN, [QUEUE, QUEUE]), 0);
    assert.deepEqual(requests(), ["2", ...ring(0), ...ring(1)]);
    assert.deepEqual(connected, ["kick 0", "kick 1", "interrupt 0", "interrupt 1"]);
    answer(0);
    answer(1);
    net.stop(() => undefined);
    assert.deepEqual(requests(), ["11:0", "11:1"]);
    assert.deepEqual(ended, []);
  });

  it("frames that the device sends or waits for go through rings of ours, which it leaves for the guest's", () => {
    requests();
    assert.equal(net.send(frame()), 72);
    assert.equal(net.receive(frame()), 0);
    assert.deepEqual(requests(), ["2", ...ring(0), ...ring(1)]);
    assert.deepEqual(connected, []);
    answer(0);
    answer(1);
    assert.equal(net.start(CHOSEN, [QUEUE, undefined]), 0);
    assert.deepEqual(requests(), ["11:0", "11:1", "2", ...ring(0)]);
    assert.deepEqual(ended, []);
  });

  it("refuses a driver that wants rings which it does not know, or buffers that cannot be merged, and asks nobody", () => {
    requests();
    const more = [VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC].map((bit) => CHOSEN | featureSet(bit));
    for (const features of [...more, featureSet(VIRTIO_F_VERSION_1)]) {
      assert.equal(net.start(features, [QUEUE, QUEUE]), EOPNOTSUPP);
    }
    assert.equal(net.explain(EOPNOTSUPP), "the driver wants another kind of ring or buffers");
    net.send(frame());
    assert.deepEqual(requests(), ["2", ...ring(0), ...ring(1)]);
  });

  for (const [what, reply, said] of [
    ["says nothing", () => undefined, "passt does not answer, and is ended"],
    ["answers something else", () => answer(0, 12), "passt does not answer, and is ended"],
    ["answers with half a message", () => writeSync(other, Buffer.alloc(7)), "passt does not answer, and is ended"],
  ] as const) {
    it(`one that ${what} is ended in time, and said once; the device goes on without a network`, async () => {
      net.start(CHOSEN, [QUEUE, QUEUE]);
      reply();
      const start = performance.now();
      net.stop(() => undefined);
      assert.ok(performance.now() - start < limit);
      assert.deepEqual(ended, [said]);
      await gone();
      assert.deepEqual([net.send(frame()), net.receive(frame())], [-EPIPE, 0]);
      assert.equal(net.start(CHOSEN, [QUEUE, QUEUE]), EPIPE);
      net.stop(() => undefined);
      net.kick(1);
      assert.deepEqual(ended, [said]);
    });
  }

  it("one that has gone is noticed by the next message, at the latest", () => {
    closeSync(other);
    other = -1;
    assert.equal(net.start(CHOSEN, [QUEUE, QUEUE]), EPIPE);
    assert.deepEqual(ended, ["passt has ended"]);
  });

  it("one that goes while nobody talks to it is noticed by the event loop", async () => {
    net.start(CHOSEN, [QUEUE, QUEUE]);
    closeSync(other);
    other = -1;
    const start = performance.now();
    while (ended.length === 0 && performance.now() - start < limit) await new Promise(setImmediate);
    assert.deepEqual(ended, ["passt has ended"]);
    await gone();
  });

  /** Its process has been ended. */
  async function gone(): Promise<void> {
    const start = performance.now();
    while (kill() && performance.now() - start < limit) await new Promise(setImmediate);
    assert.ok(!kill());
  }
});
