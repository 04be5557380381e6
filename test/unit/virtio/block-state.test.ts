// Needs: nothing. A block device made quiet, saved and restored, with requests on their way.
import assert from "node:assert/strict";
import { StateError } from "../../../devices/state.js";
import {
  VIRTIO_BLK_S_OK as OK,
  VIRTIO_BLK_T_FLUSH,
  VIRTIO_BLK_T_IN,
  VIRTIO_BLK_T_OUT,
} from "../../../devices/virtio/block/constants.js";
import { BlockDevice, type BlockDeviceOptions } from "../../../devices/virtio/block/device.js";
import { MAX_SLOW_REQUESTS } from "../../../devices/virtio/block/slow-requests.js";
import {
  readable,
  request,
  rig,
  SECTORS,
  UNTOUCHED,
  writable,
  writeHeader,
  type Rig,
} from "../../helpers/block-rig.js";
import { FakeLoop } from "../../helpers/fake-loop.js";
import { FakeMemory } from "../../helpers/fake-memory.js";
import { MemoryDisk } from "../../helpers/memory-disk.js";
import { assertMutationsRefused } from "../../helpers/mutated-state.js";
import { restoreSaved, restoredMachine, saveQuiet, type SavedDevice } from "../../helpers/restored.js";
import { MACHINE_MEMORY_SIZE, virtioMachine } from "../../helpers/virtio-machine.js";

const HEADERS = 0x22_0000;
const STATUSES = 0x23_0000;
const BUFFERS = 0x24_0000;
const RATE = { operations: { size: 4, oneTimeBurst: 2, refillTimeMs: 1000 } };

function ask(m: Rig, index: number, type: number, sector: number): number {
  writeHeader(m, type, sector, HEADERS + 16 * index);
  m.memory.writeU8(STATUSES + index, UNTOUCHED);
  const gpa = BUFFERS + 512 * index;
  const data = type === VIRTIO_BLK_T_FLUSH ? [] : [type === VIRTIO_BLK_T_IN ? writable(512, gpa) : readable(512, gpa)];
  const head = m.queue.add([readable(16, HEADERS + 16 * index), ...data, writable(1, STATUSES + index)]);
  m.driver.notify(0);
  return head;
}

/** Another process with the same guest memory and disk. */
function next(m: Rig, state: SavedDevice, options: Partial<BlockDeviceOptions> = {}): Rig {
  const disk = new MemoryDisk(m.memory, m.disk.size, m.disk.isReadonly);
  disk.bytes.set(m.disk.bytes);
  const device = deviceOver(disk, m.loop, options);
  return Object.assign(restoredMachine(state, device, m.loop, m.memory), { disk, device, queue: m.queue });
}

function deviceOver(disk: MemoryDisk, loop: FakeLoop, options: Partial<BlockDeviceOptions> = {}): BlockDevice {
  return new BlockDevice({
    ...{ name: "block0", backend: disk, id: "a disk", blockSize: 512, cache: "writeback", loop },
    report: () => undefined,
    ...options,
  });
}

describe("block device: state", function () {
  this.timeout(20_000);

  it("requests that wait for the medium are answered before it is quiet, each once, and no other is begun", async () => {
    const m = rig();
    m.disk.isSlow = true;
    const count = MAX_SLOW_REQUESTS + 3;
    const heads = Array.from({ length: count }, (_, index) => ask(m, index, index % 2, index));
    assert.equal(m.disk.later.length, MAX_SLOW_REQUESTS);
    let isQuiet = false;
    const quiet = m.transport.quiesce().then(() => (isQuiet = true));
    for (let left = MAX_SLOW_REQUESTS; left > 0; left--) {
      await Promise.resolve();
      assert.equal(isQuiet, false, `${String(left)} are under way`);
      assert.ok(m.disk.finishOne());
      m.loop.settle();
    }
    await quiet;
    assert.equal(m.disk.later.length, 0, "another was begun");
    const first = m.queue.collect().map(({ id }) => id);
    assert.deepEqual(first, heads.slice(0, MAX_SLOW_REQUESTS));
    const before = m.interrupts;
    const other = next(m, await saveQuiet(m));
    other.loop.settle();
    assert.equal(m.interrupts, before);
    assert.deepEqual(
      m.queue.collect().map(({ id }) => id),
      heads.slice(MAX_SLOW_REQUESTS),
    );
    for (let index = 0; index < count; index++) assert.equal(m.memory.readU8(STATUSES + index), OK, String(index));
    assert.deepEqual([m.device.counters.slow, other.device.counters.writes + other.device.counters.reads], [16, 3]);
  });

  it("the same device goes on with the requests that it has not begun", async () => {
    const m = rig();
    m.disk.isSlow = true;
    const heads = Array.from({ length: MAX_SLOW_REQUESTS + 2 }, (_, index) => ask(m, index, VIRTIO_BLK_T_IN, index));
    await saveQuiet(m, () => {
      while (m.disk.finishOne()) m.loop.settle();
    });
    m.disk.isSlow = false;
    m.transport.unquiesce();
    m.loop.settle();
    assert.deepEqual(
      m.queue.collect().map(({ id }) => id),
      heads,
    );
  });

  it("requests of a driver that is gone are waited for, too: they write to the disk", async () => {
    const m = rig();
    m.disk.isSlow = true;
    ask(m, 0, VIRTIO_BLK_T_OUT, 1);
    m.driver.reset();
    let isQuiet = false;
    const quiet = m.transport.quiesce().then(() => (isQuiet = true));
    await Promise.resolve();
    assert.equal(isQuiet, false);
    m.disk.finishOne();
    m.loop.settle();
    await quiet;
  });

  it("flushes what can be written, elsewhere if that takes long, and says what has failed", async () => {
    const m = rig();
    await m.device.flush();
    assert.deepEqual(m.disk.log, ["flush"]);
    m.disk.isSlow = true;
    const flushed = m.device.flush();
    m.disk.finishOne();
    await flushed;
    m.disk.error = 5;
    const failing = m.device.flush();
    m.disk.finishOne();
    await assert.rejects(
      failing,
      (error) => error instanceof StateError && /^block0 cannot be saved, a flush.*: error 5$/.test(error.message),
    );
    const readonly = rig({ isReadonly: true });
    await readonly.device.flush();
    assert.deepEqual(readonly.disk.log, []);
  });

  it("what a rate limiter has given out stays given, time that has passed elsewhere counts for nothing", async () => {
    const m = rig({ rateLimiter: RATE });
    for (let index = 0; index < 9; index++) ask(m, index, VIRTIO_BLK_T_IN, index);
    assert.equal(m.queue.collect().length, 6);
    m.loop.advance(600);
    assert.equal(m.queue.collect().length, 2);
    const state = await saveQuiet(m);
    assert.deepEqual(state.device, {
      size: SECTORS * 512,
      limiter: { bandwidth: null, operations: { tokens: 0, burst: 0 } },
    });
    m.driver.reset();
    const loop = new FakeLoop();
    const device = deviceOver(m.disk, loop, { rateLimiter: RATE });
    const machine = restoredMachine(state, device, loop, m.memory);
    assert.equal(m.queue.collect().length, 0);
    loop.advance(240);
    assert.equal(m.queue.collect().length, 0);
    loop.advance(10);
    assert.equal(m.queue.collect().length, 1);
    assert.equal(machine.driver.status, 15);
  });

  it("a disk of another size, or one that may not be written any more, is refused", async () => {
    const m = rig();
    const state = await saveQuiet(m);
    const refused = (disk: MemoryDisk, message: RegExp): void => {
      const machine = virtioMachine(deviceOver(disk, m.loop), m.loop, m.memory);
      assert.throws(
        () => restoreSaved(machine, state),
        (error) => error instanceof StateError && message.test(error.message),
      );
    };
    refused(new MemoryDisk(m.memory, 512), /^state\.device\.size 32768 is not the size of the disk, 512 bytes$/);
    refused(new MemoryDisk(m.memory, SECTORS * 512, true), /does not offer: 0x6000$/);
  });

  it("a restored device answers requests", async () => {
    const m = rig();
    assert.equal(request(m, VIRTIO_BLK_T_IN, 3, writable(512)).status, OK);
    const other = next(m, await saveQuiet(m));
    assert.deepEqual(request(other, VIRTIO_BLK_T_IN, 3, writable(512)), { status: OK, used: 513 });
    assert.deepEqual(request(other, VIRTIO_BLK_T_FLUSH, 0), { status: OK, used: 1 });
  });

  it("every field that is missing, unknown, of another type or off its limits is refused with its path", async () => {
    const m = rig({ rateLimiter: { ...RATE, bandwidth: { size: 1000, oneTimeBurst: 0, refillTimeMs: 100 } } });
    const memory = new FakeMemory(MACHINE_MEMORY_SIZE);
    assertMutationsRefused(await saveQuiet(m), "state", (changed) => {
      const device = deviceOver(new MemoryDisk(memory, SECTORS * 512), m.loop, { rateLimiter: RATE });
      const machine = virtioMachine(device, m.loop, memory);
      restoreSaved(machine, changed);
      machine.transport.unquiesce();
    });
  });
});
