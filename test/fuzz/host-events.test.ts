// Needs: a temporary directory. What comes by the real event loop, between two accesses of the guest or after the end of all: sockets of
// host programs that say anything and go at any time, a network's stream of nonsense, ends of reads and writes of a disk. A guest that
// does what it likes meanwhile brings out no error, neither at the devices' guard nor outside it.
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync, writeSync } from "node:fs";
import { createConnection, createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { BlockDevice } from "../../devices/virtio/block/device.js";
import type { VirtioDevice } from "../../devices/virtio/device.js";
import { MmioTransport, VIRTIO_MMIO_REGISTER_WORDS } from "../../devices/virtio/mmio-transport.js";
import { NetDevice } from "../../devices/virtio/net/device.js";
import { VsockDevice } from "../../devices/virtio/vsock/device.js";
import { MappedGuestMemory } from "../../vmm/memory/guest-memory.js";
import { MIB } from "../../vmm/memory/layout.js";
import { closeDescriptor } from "../../vmm/sys/descriptors.js";
import { streamPair } from "../../vmm/sys/sockets.js";
import { openDiskFile } from "../../vmm/virtio/backends/disk-file.js";
import { FileDisk } from "../../vmm/virtio/backends/file-disk.js";
import { StreamNet } from "../../vmm/virtio/backends/stream-net.js";
import { UnixVsock } from "../../vmm/virtio/backends/vsock-unix.js";
import { DeviceLoop } from "../../vmm/virtio/device-loop.js";
import type { Guard } from "../../vmm/virtio/guard.js";
import type { DriverQueue } from "../helpers/driver-queue.js";
import { VirtioDriver } from "../helpers/virtio-driver.js";
import { Random } from "./random.js";

const HEAP_GPA = 0x10_0000;
const HEAP_BYTES = 0x1_0000;
const DISK_BYTES = MIB;
const CID = 3;
const STEPS = 400;
const GUEST_PORT = 5;

/** One device with its driver, and what the host does to it. */
interface Played {
  readonly transport: MmioTransport;
  readonly driver: VirtioDriver;
  queues: readonly DriverQueue[];
  readonly host: () => void;
}

describe("fuzz: events of the host", function () {
  this.timeout(60_000);
  const folder = mkdtempSync(join(tmpdir(), "vmlet-events-"));
  const memory = MappedGuestMemory.map(16 * MIB);
  const unhandled: unknown[] = [];
  const note = (error: unknown): void => void unhandled.push(error);
  const closers: (() => void | Promise<void>)[] = [];
  let failures: unknown[];
  let loop: DeviceLoop;
  const guard: Guard = (task) => loop.guard(task);

  before(() => {
    process.on("unhandledRejection", note).on("uncaughtException", note);
  });
  after(() => {
    process.off("unhandledRejection", note).off("uncaughtException", note);
    memory.unmap();
    rmSync(folder, { recursive: true });
  });
  beforeEach(() => {
    failures = [];
    const hooks = {
      wakeOwner: () => undefined,
      alarm: () => undefined,
      failed: (error: unknown) => failures.push(error),
    };
    loop = new DeviceLoop(hooks);
  });
  afterEach(async () => {
    for (const close of closers.splice(0).reverse()) await close();
  });

  function play(device: VirtioDevice, index: number, host: () => void): Played {
    const transport = new MmioTransport({
      device,
      memory,
      interrupt: { trigger: () => undefined },
      registers: new Int32Array(VIRTIO_MMIO_REGISTER_WORDS),
      loop,
      report: () => undefined,
    });
    return { transport, driver: new VirtioDriver(transport, memory, HEAP_GPA * (1 + index)), queues: [], host };
  }

  function disk(random: Random): Played {
    const path = join(folder, "disk");
    writeFileSync(path, new Uint8Array(DISK_BYTES));
    // Not locked: the next one has the same file, while the one before may still have something in flight.
    const options = { path, isReadonly: false, blockSize: 512, isLocked: false } as const;
    const open = (): FileDisk => new FileDisk(openDiskFile(options), memory, () => true, guard);
    let now = open();
    closers.push(() => now.close());
    const report = (): void => undefined;
    const device = new BlockDevice({
      name: "vda",
      backend: now,
      id: "",
      blockSize: 512,
      cache: "writeback",
      loop,
      report,
    });
    return play(device, 0, () => {
      const bucket = { size: random.pick([1, 4000]), oneTimeBurst: 0, refillTimeMs: 1 };
      if (random.oneIn(3)) device.updateRateLimiter({ operations: bucket });
      if (!random.oneIn(6)) return;
      const old = now;
      const next = open();
      now = next;
      device.replaceBackend(next, () => old.close());
    });
  }

  function net(random: Random): Played {
    const [own, other] = streamPair();
    let isOpen = true;
    const closeOther = (): void => {
      if (isOpen) closeDescriptor(other);
      isOpen = false;
    };
    const backend = new StreamNet(own, memory, () => undefined, guard);
    closers.push(() => backend.close(), closeOther);
    const device = new NetDevice({
      ...{ name: "net0", backend, mac: Uint8Array.of(2, 0, 0, 0, 0, 1), loop, report: () => undefined },
    });
    return play(device, 1, () => {
      if (random.oneIn(60)) closeOther();
      if (!isOpen) return;
      const frame = Buffer.alloc(4 + random.below(200), random.below(256));
      frame.writeUInt32BE(random.oneIn(20) ? random.value() : frame.length - 4);
      try {
        writeSync(other, random.oneIn(10) ? frame.subarray(0, random.below(frame.length)) : frame);
      } catch (error) {
        // The guest takes nothing.
        assert.equal((error as NodeJS.ErrnoException).code, "EAGAIN");
      }
    });
  }

  function vsock(random: Random): Played {
    const path = join(folder, `v${String(random.u32())}`);
    const backend = UnixVsock.listen(path, () => undefined);
    backend.guard = guard;
    const sockets = new Set<Socket>();
    const keep = (socket: Socket): void => {
      sockets.add(socket);
      socket.on("error", () => undefined).on("close", () => sockets.delete(socket));
    };
    const server: Server = createServer(keep).listen(`${path}_${String(GUEST_PORT)}`);
    closers.push(async () => {
      for (const socket of sockets) socket.destroy();
      server.close();
      await backend.close();
    });
    const device = new VsockDevice({ name: "vsock0", backend, guestCid: CID, loop });
    return play(device, 2, () => {
      if (random.oneIn(3) && sockets.size < 8) {
        const socket = createConnection(path);
        keep(socket);
        socket.write(
          random.pick(["CONNECT 5\n", "CONNECT 5\nabc", "CONNECT x\n", "CON", "\n", "CONNECT 4294967295\n"]),
        );
        return;
      }
      const socket = [...sockets][0];
      if (socket === undefined) return;
      if (random.oneIn(4)) socket.destroy();
      else if (random.oneIn(4)) socket.end();
      else if (socket.writable) socket.write(Buffer.alloc(random.below(70_000)));
      else socket.resume();
    });
  }

  /** What a guest does at one time: chains of anything at addresses of its own, resets, starts, stops. */
  function asGuest(random: Random, played: Played, index: number): void {
    const { transport, driver } = played;
    if (played.queues.length === 0 || random.oneIn(12)) played.queues = driver.start({ queueSize: 8 });
    const at = random.below(played.queues.length);
    const queue = played.queues[at];
    if (queue === undefined) return;
    const gpa = (): number => HEAP_GPA * (1 + index) + 0x2000 + random.below(HEAP_BYTES - 0x4000);
    const header = gpa();
    memory.writeU32(header, random.pick([0, 1, 4, 8, 11, 13, 2]));
    memory.writeU64(header + 8, BigInt(random.below(DISK_BYTES / 512)));
    // The same bytes as the header of a packet.
    if (index === 2) {
      const words = [
        CID,
        0,
        2,
        0,
        random.below(3),
        GUEST_PORT,
        random.below(200),
        1 | (random.below(8) << 16),
        0,
        65536,
        0,
      ];
      words.forEach((word, place) => memory.writeU32(header + 4 * place, word));
    }
    const isIn = index === 0 ? random.oneIn(2) : at === 0;
    queue.writeDescriptor(0, { gpa: header, length: index === 0 ? 16 : 44, flags: 1, next: 1 });
    queue.writeDescriptor(1, { gpa: gpa(), length: 512 * random.below(5), flags: 1 | (isIn ? 2 : 0), next: 2 });
    queue.writeDescriptor(2, {
      gpa: gpa(),
      length: index === 0 ? 1 : 100,
      flags: index === 0 || isIn ? 2 : 0,
      next: 0,
    });
    queue.publish(isIn && index !== 0 ? 1 : 0);
    transport.notify(at);
    if (random.oneIn(40)) driver.reset();
    if (random.oneIn(60)) driver.stopQueue(at);
  }

  for (const [kind, make] of Object.entries({ disk, net, vsock })) {
    it(`${kind}: a guest and its host at once, then an end in the middle`, async () => {
      for (const seed of [1, 2, 3]) {
        const random = new Random(seed);
        const played = make(random);
        const index = ["disk", "net", "vsock"].indexOf(kind);
        for (let step = 0; step < STEPS; step++) {
          if (random.oneIn(2)) loop.guard(() => asGuest(random, played, index));
          if (random.oneIn(3)) loop.guard(played.host);
          if (random.oneIn(4)) await new Promise((resolve) => setImmediate(resolve));
          if (random.oneIn(40)) {
            await Promise.race([played.transport.quiesce(), loop.failure]);
            loop.guard(() => played.transport.unquiesce());
          }
        }
        // As the VM ends: devices first, then what they had of the host.
        played.transport.device.reset();
        for (const close of closers.splice(0).reverse()) await close();
        await new Promise((resolve) => setTimeout(resolve, 20));
        assert.deepEqual(failures, []);
        assert.deepEqual(unhandled, []);
      }
    });
  }
});
