// A device of each kind over a host that a fuzzer plays, with all that the host and the owner of the VM can do to it.
import assert from "node:assert/strict";
import { BalloonDevice } from "../../devices/virtio/balloon/device.js";
import { BlockDevice } from "../../devices/virtio/block/device.js";
import { ConsoleDevice } from "../../devices/virtio/console/device.js";
import type { VirtioDevice } from "../../devices/virtio/device.js";
import { FsDevice } from "../../devices/virtio/fs/device.js";
import { NetDevice } from "../../devices/virtio/net/device.js";
import { RngDevice } from "../../devices/virtio/rng/device.js";
import { VsockDevice } from "../../devices/virtio/vsock/device.js";
import { FakeFsServer } from "../helpers/fake-fs-server.js";
import { FakeStreams } from "../helpers/fake-streams.js";
import { MemoryDisk } from "../helpers/memory-disk.js";
import { frameOf, MemoryNet } from "../helpers/memory-net.js";
import type { DriverQueue } from "../helpers/driver-queue.js";
import type { FakeLoop } from "../helpers/fake-loop.js";
import type { HostileMemory } from "./hostile-memory.js";
import type { Random } from "./random.js";
import { publishRequest } from "./targets/block.js";
import { publishBuffers } from "./targets/net.js";
import { publishBuffer, publishPacket } from "./targets/vsock.js";

export const SUBJECT_KINDS = 7;
const DISK_BYTES = 64 * 512;
const LIMIT = { size: 3, oneTimeBurst: 1, refillTimeMs: 100 };

/** A limit that is given, taken back or left as it is. */
function limits(random: Random): { readonly operations?: typeof LIMIT; readonly bandwidth?: typeof LIMIT } {
  const bucket = { ...LIMIT, size: random.pick([0, 1, 3, 4000]) };
  return random.oneIn(3) ? {} : random.oneIn(2) ? { operations: bucket } : { bandwidth: bucket };
}

export interface Subject {
  readonly device: VirtioDevice;
  /** Something comes from the host, or what it has begun comes to its end. */
  readonly stir: () => void;
  /** Publishes what a driver of this kind asks for, nearly right. */
  readonly request?: (queue: DriverQueue, index: number) => void;
  /** What the owner of the VM may ask of the device while it runs. */
  readonly controls: readonly (() => void)[];
}

export function subject(random: Random, memory: HostileMemory, loop: FakeLoop, kind: number): Subject {
  const report = (): void => undefined;
  const rateLimiter = random.oneIn(2) ? { operations: LIMIT, bandwidth: { ...LIMIT, size: 4000 } } : undefined;
  switch (kind) {
    case 0: {
      const backend = new MemoryDisk(memory, DISK_BYTES);
      backend.isSlow = random.oneIn(2);
      const disks = [backend];
      const closed: MemoryDisk[] = [];
      const options = { name: "block0", backend, id: "", blockSize: 512, cache: "writeback", rateLimiter } as const;
      const device = new BlockDevice({ ...options, loop, report });
      return {
        device,
        request: (queue) => publishRequest(random, memory, queue),
        stir: () => {
          for (const disk of disks) disk.finishOne();
          for (const disk of closed)
            assert.ok(disk.log.length === 0 && disk.later.length === 0, "a closed disk is used");
        },
        controls: [
          () => device.updateRateLimiter(limits(random)),
          () => (random.pick(disks).isSlow = random.oneIn(2)),
          () => (random.pick(disks).error = random.pick([0, 0, 5])),
          () => {
            const old = disks.at(-1);
            const next = new MemoryDisk(memory, 512 * (1 + random.below(64)));
            next.isSlow = random.oneIn(2);
            disks.push(next);
            device.replaceBackend(next, () => {
              assert.ok(old !== undefined && old.later.length === 0, "a disk is closed that has something in flight");
              old.log.length = 0;
              closed.push(old);
            });
          },
        ],
      };
    }
    case 1: {
      const net = new MemoryNet(memory);
      const options = { name: "net0", backend: net, mac: Uint8Array.of(2, 0, 0, 0, 0, 1), loop, report };
      const device = new NetDevice({ ...options, rxRateLimiter: rateLimiter });
      return {
        device,
        request: (queue, index) => publishBuffers(random, memory, queue, index === 0),
        stir: () => {
          // Nobody takes them while the link is down, and a host keeps no more either.
          net.waiting.length = Math.min(net.waiting.length, 50);
          net.arrive(frameOf(60), frameOf(random.below(3000)));
        },
        controls: [
          () => device.setLink(random.oneIn(2)),
          () => device.updateRateLimiters(random.oneIn(2) ? { rx: limits(random) } : { tx: limits(random) }),
          () => device.relayInterrupts(random.oneIn(2)),
          () => device.followPages(random.oneIn(2)),
          () => (net.sendResult = random.oneIn(2) ? undefined : random.pick([0, -5])),
          () => (net.receiveError = random.pick([0, 0, 77])),
        ],
      };
    }
    case 2: {
      const streams = new FakeStreams();
      const device = new VsockDevice({ name: "vsock0", backend: streams, guestCid: 3, loop });
      return {
        device,
        request: (queue, index) => {
          if (index === 1) publishPacket(random, memory, queue);
          else publishBuffer(random, memory, queue);
        },
        stir: () => {
          const stream = streams.open(5);
          stream?.events?.data(new Uint8Array(100));
          const { events } = streams.asked.at(-1) ?? {};
          if (random.oneIn(2)) events?.connected();
          else if (stream?.isDestroyed === false && random.oneIn(2)) stream.events?.closed(random.oneIn(2));
        },
        controls: [() => undefined],
      };
    }
    case 3: {
      const host = { transmit: () => !random.oneIn(3), roomAvailable: () => undefined };
      const device = new ConsoleDevice({ name: "console0", host });
      return {
        device,
        stir: () => {
          device.receive(new Uint8Array(20));
          device.outputReady();
        },
        controls: [() => device.resize({ columns: random.value(), rows: random.value() })],
      };
    }
    case 4: {
      const source = { fill: (bytes: Uint8Array) => void bytes.fill(1) };
      const device = new RngDevice({ name: "rng0", source, rateLimiter, loop });
      return { device, stir: () => undefined, controls: [() => device.updateRateLimiter(limits(random))] };
    }
    case 5: {
      const backend = new FakeFsServer();
      const device = new FsDevice({ name: "share0", tag: Buffer.from("tag"), backend });
      const stir = (): void => {
        const isOdd = backend.queues.some((queue) => {
          return queue !== undefined && !memory.contains(queue.usedGpa, 6 + 8 * queue.size);
        });
        assert.ok(!isOdd, "a server is told of a ring that is not in RAM");
        device.whyNotSaved();
        if (random.oneIn(8)) backend.onLost?.();
      };
      return { device, stir, controls: [() => device.relayInterrupts(random.oneIn(2))] };
    }
    default: {
      const pages = { release: () => 0, explain: String };
      const options = {
        name: "balloon0",
        pages,
        pageReporting: true,
        pageHinting: true,
        onStatistics: () => undefined,
        loop,
        report,
      };
      const device = new BalloonDevice(options);
      return {
        device,
        stir: () => void device.requestStatistics(),
        controls: [
          () => device.setTarget(4096 * random.below(100)),
          () => device.setStatisticsInterval(random.below(3)),
          () => device.startHinting(random.oneIn(2)),
          () => device.stopHinting(),
        ],
      };
    }
  }
}
