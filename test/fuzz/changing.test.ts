// Needs: nothing. Guest memory that changes while a device reads it: nothing is read twice, and a second thread that writes to
// rings, descriptors and buffers leads neither out of RAM nor to an error that no guest may cause.
import assert from "node:assert/strict";
import { DescriptorChain } from "../../devices/virtio/chain.js";
import { VIRTIO_RING_F_INDIRECT_DESC, VIRTQ_DESC_F_NEXT, VIRTQ_DESC_F_WRITE } from "../../devices/virtio/constants.js";
import type { GuestMemory } from "../../devices/contracts.js";
import type { Segments } from "../../devices/virtio/segments.js";
import { WindowedMemory } from "../../vmm/memory/windowed-memory.js";
import { DriverQueue } from "../helpers/driver-queue.js";
import { FakeLoop } from "../helpers/fake-loop.js";
import { carelessChain, type ChainClass } from "./changing/careless.js";
import { DEVICE_KINDS, makeSubject } from "./changing/devices.js";
import { FetchLog } from "./changing/fetch-log.js";
import { SecondThread } from "./changing/second-thread.js";
import { HostileMemory } from "./hostile-memory.js";
import { allowQueueError } from "./target.js";
import { Random } from "./random.js";

const RAM = 0x2_0000;
const QUEUE_SIZE = 8;
/** `ms` that the second thread writes for each device; `STORM=SECONDS` for longer. */
const STORM_MS = 1000 * Number(process.env["STORM"] ?? 0.3);
/** A mistake that every second walk meets is met within this. */
const CARELESS_MS = 20_000;

/** Every range of a chain is RAM, as a backend may take for granted. */
function checkRanges(memory: GuestMemory, { gpas, lengths, count }: Segments): void {
  for (let index = 0; index < count; index++) {
    const gpa = gpas[index] ?? 0;
    const length = lengths[index] ?? 0;
    assert.ok(memory.contains(gpa, length), `${String(length)} bytes at 0x${gpa.toString(16)} are not RAM`);
  }
}

function walkAll(memory: GuestMemory, chain: DescriptorChain, tableGpa: number): void {
  for (let head = 0; head < QUEUE_SIZE; head++) {
    allowQueueError(() => {
      chain.walk(memory, tableGpa, QUEUE_SIZE, head, true);
      checkRanges(memory, chain.readable);
      checkRanges(memory, chain.writable);
    });
  }
}

/** Chains of `QUEUE_SIZE` descriptors, in RAM. */
function writeTable(memory: GuestMemory): number {
  const queue = new DriverQueue(memory, 0x1000, QUEUE_SIZE, false);
  for (let index = 0; index < QUEUE_SIZE; index++) {
    const flags = (index + 1 < QUEUE_SIZE ? VIRTQ_DESC_F_NEXT : 0) | VIRTQ_DESC_F_WRITE;
    queue.writeDescriptor(index, { gpa: 0x8000 + 64 * index, length: 64, flags, next: index + 1 });
  }
  return queue.descriptorGpa;
}

/** RAM that another thread has, too. */
function sharedRam(): { readonly memory: WindowedMemory; readonly ram: SharedArrayBuffer } {
  const ram = new SharedArrayBuffer(RAM);
  const view = (offset: number, length: number): Uint8Array => new Uint8Array(ram, offset, length);
  return { ram, memory: new WindowedMemory([{ gpa: 0, size: RAM }], view, { viewBytes: 2 ** 32, overlapBytes: 0 }) };
}

/** As many walks as there is time for, while another thread writes to the table; the first error that one has thrown. */
async function walkInStorm(Chain: ChainClass, limitMs: number): Promise<unknown> {
  const { memory, ram } = sharedRam();
  const tableGpa = writeTable(memory);
  const second = new SecondThread(ram, [tableGpa, 16 * QUEUE_SIZE], 1);
  await second.begin();
  const chain = new Chain(QUEUE_SIZE);
  const end = performance.now() + limitMs;
  try {
    while (performance.now() < end) for (let left = 1000; left > 0; left--) walkAll(memory, chain, tableGpa);
  } catch (error) {
    return error;
  } finally {
    second.stop();
  }
  return undefined;
}

describe("fuzz: memory that changes", function () {
  this.timeout(60_000 + 2 * STORM_MS);
  let Careless: ChainClass;
  before(async () => {
    Careless = await carelessChain();
  });

  for (const kind of DEVICE_KINDS) {
    it(`${kind}: nothing of a request is read twice`, () => {
      const memory = new FetchLog(RAM);
      const subject = makeSubject(kind, memory, new FakeLoop());
      subject.request((action) => {
        memory.watch(action);
      });
      assert.deepEqual(memory.again, []);
    });
  }

  it("a chain that is read twice is told of", () => {
    const memory = new FetchLog(RAM);
    const tableGpa = writeTable(memory);
    memory.watch(() => new DescriptorChain(QUEUE_SIZE).walk(memory, tableGpa, QUEUE_SIZE, 0, false));
    assert.deepEqual(memory.again, []);
    memory.watch(() => new Careless(QUEUE_SIZE).walk(memory, tableGpa, QUEUE_SIZE, 0, false));
    assert.equal(memory.again.length, QUEUE_SIZE);
  });

  it("descriptors that change right after they were read lead nowhere; one that is read twice leads out of RAM", () => {
    const random = new Random(1);
    const memory = new HostileMemory(RAM, random, "flat");
    const tableGpa = writeTable(memory);
    const spoil = (gpa: number): void => {
      memory.writeU64(gpa, BigInt(random.value()) * BigInt(random.value()));
      memory.writeU32(gpa + 8, random.value());
    };
    const walk = (Chain: ChainClass): void => {
      memory.asGuest(() => writeTable(memory));
      memory.changeDescriptor = spoil;
      const chain = new Chain(QUEUE_SIZE);
      walkAll(memory, chain, tableGpa);
      memory.accesses = 0;
    };
    for (let left = 500; left > 0; left--) walk(DescriptorChain);
    assert.throws(() => {
      for (let left = 500; left > 0; left--) walk(Careless);
    }, /are not RAM/);
  });

  it("the same with another thread that writes", async () => {
    assert.equal(await walkInStorm(DescriptorChain, STORM_MS), undefined);
    assert.match(String(await walkInStorm(Careless, CARELESS_MS)), /are not RAM/);
  });

  for (const kind of DEVICE_KINDS) {
    it(`${kind}: another thread writes to its rings, descriptors and buffers`, async () => {
      const { memory, ram } = sharedRam();
      const loop = new FakeLoop();
      const subject = makeSubject(kind, memory, loop);
      const { driver, transport } = subject.machine;
      const features = [VIRTIO_RING_F_INDIRECT_DESC, 0, 1];
      // From the rings on to the end of RAM.
      const second = new SecondThread(ram, [0x1000, 0x4000, 0x1000, RAM - 0x1000], 2);
      await second.begin();
      let rounds = 0;
      try {
        for (const end = performance.now() + STORM_MS; performance.now() < end; rounds++) {
          const queues = driver.start({ features, queueSize: QUEUE_SIZE });
          for (let left = 20; left > 0; left--) {
            for (const [index, queue] of queues.entries()) {
              queue.publish(left % QUEUE_SIZE);
              transport.notify(index);
            }
            subject.stir();
            loop.advance(5);
            for (let turns = 0; turns < 100 && loop.turn(); turns++);
          }
        }
      } finally {
        second.stop();
      }
      driver.reset();
      assert.ok(rounds > 0);
      subject.request((action) => {
        action();
      });
    });
  }
});
