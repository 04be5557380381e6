// Needs: nothing. What devices and fix-ups write to guest memory is noted for those who follow which pages change.
import assert from "node:assert/strict";
import { VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC } from "../../../devices/virtio/constants.js";
import { RngDevice } from "../../../devices/virtio/rng/device.js";
import { translate } from "../../../vmm/fixups/paging.js";
import { writeLinear } from "../../../vmm/fixups/linear-memory.js";
import { MappedGuestMemory } from "../../../vmm/memory/guest-memory.js";
import { MIB, PAGE_SIZE } from "../../../vmm/memory/layout.js";
import { pageWords, WrittenPages } from "../../../vmm/memory/written-pages.js";
import { MappedGuestPages } from "../../../vmm/virtio/backends/guest-pages.js";
import { FakeLoop } from "../../helpers/fake-loop.js";
import { virtioMachine } from "../../helpers/virtio-machine.js";

const SIZE = 4 * MIB;
const BUFFER = 0x20_0000;

describe("pages that the monitor writes", () => {
  let memory: MappedGuestMemory;
  let written: WrittenPages;

  beforeEach(() => {
    memory = MappedGuestMemory.map(SIZE);
    written = WrittenPages.map(SIZE);
    memory.noteIn(written);
  });
  afterEach(() => {
    memory.unmap();
    written.unmap();
  });

  function noted(): Set<number> {
    const pages = new Uint32Array(pageWords(SIZE));
    written.moveTo(pages);
    const found = new Set<number>();
    pages.forEach((bits, word) => {
      for (let bit = 0; bit < 32; bit++) if (((bits >>> bit) & 1) !== 0) found.add(word * 32 + bit);
    });
    return found;
  }

  /** Pages that `task` changes, and which it notes. */
  function during(task: () => void): { changed: number[]; noted: Set<number> } {
    const before = Buffer.from(memory.slice(0, SIZE));
    task();
    const after = memory.slice(0, SIZE);
    const changed = Array.from({ length: SIZE / PAGE_SIZE }, (_, page) => page).filter((page) => {
      const [start, end] = [page * PAGE_SIZE, (page + 1) * PAGE_SIZE];
      return Buffer.compare(before.subarray(start, end), after.subarray(start, end)) !== 0;
    });
    return { changed, noted: noted() };
  }

  for (const features of [[], [VIRTIO_RING_F_EVENT_IDX], [VIRTIO_RING_F_INDIRECT_DESC]]) {
    it(`buffers that come back, both rings; features ${features.join()}`, () => {
      const loop = new FakeLoop();
      const source = { fill: (bytes: Uint8Array) => void bytes.fill(0x5e) };
      const machine = virtioMachine(new RngDevice({ name: "rng0", source, loop }), loop, memory);
      const [queue] = machine.driver.start({ features });
      assert.ok(queue !== undefined);
      written.isWatched = true;
      for (let round = 0; round < 100; round++) {
        const buffers = [0, 1, 2].map((index) => ({
          gpa: BUFFER + ((round * 7 + index * 31) % 256) * PAGE_SIZE + 4090,
          length: 12,
          writable: true,
        }));
        const indirect = features.includes(VIRTIO_RING_F_INDIRECT_DESC) && round % 2 === 1;
        if (indirect) queue.addIndirect(0x10_0000, buffers);
        else queue.add(buffers);
        const { changed, noted } = during(() => {
          machine.driver.notify(0);
          loop.settle();
        });
        assert.ok(changed.length > 0);
        assert.deepEqual(
          changed.filter((page) => !noted.has(page)),
          [],
        );
        assert.ok(noted.size <= 9);
        assert.equal(queue.collect().length, 1);
      }
    });
  }

  it("a chain that the driver changes meanwhile is no failure", () => {
    const loop = new FakeLoop();
    const source = {
      fill: (bytes: Uint8Array) => {
        bytes.fill(1);
        // As another processor of the guest would: a descriptor that is not there.
        queue?.writeDescriptor(0, { gpa: BUFFER, length: 8, flags: 3, next: 0xffff });
        for (let index = 0; index < (queue?.size ?? 0); index++)
          queue?.writeDescriptor(index, { gpa: 2 ** 50, length: 8, flags: 2, next: 0 });
      },
    };
    const machine = virtioMachine(new RngDevice({ name: "rng0", source, loop }), loop, memory);
    const [queue] = machine.driver.start();
    written.isWatched = true;
    queue?.add([{ gpa: BUFFER, length: 8, writable: true }]);
    machine.driver.notify(0);
    assert.equal(queue?.collect().length, 1);
    assert.deepEqual(machine.log, []);
  });

  it("nothing is noted while nobody watches", () => {
    memory.noteWritten(0, 1);
    assert.equal(noted().size, 1);
    assert.equal(memory.isWatched, false);
    const loop = new FakeLoop();
    const machine = virtioMachine(
      new RngDevice({ name: "rng0", source: { fill: () => undefined }, loop }),
      loop,
      memory,
    );
    const [queue] = machine.driver.start();
    queue?.add([{ gpa: BUFFER, length: 8, writable: true }]);
    machine.driver.notify(0);
    assert.equal(queue?.collect().length, 1);
    assert.equal(noted().size, 0);
  });

  it("fix-ups: what they store, and the bits that they set in page tables; from any thread's view", () => {
    const other = MappedGuestMemory.attach(memory.hostAddress, SIZE, WrittenPages.attach(written.address, SIZE));
    written.isWatched = true;
    const [pml4, pdpt, pd, pt] = [0x1000, 0x2000, 0x3000, 0x4000] as const;
    for (const [table, next] of [
      [pml4, pdpt],
      [pdpt, pd],
      [pd, pt],
    ] as const)
      memory.writeU64(table, BigInt(next) | 7n);
    for (let page = 0; page < 512; page++) memory.writeU64(pt + 8 * page, BigInt(page * PAGE_SIZE) | 7n);
    const state = { cr0: 0x8001_0011n, cr3: BigInt(pml4), cr4: 0x20n, rflags: 2n, cpl: 0 };
    noted();
    const stored = during(() => writeLinear(other, state, 0x10_0ffcn, new Uint8Array(8).fill(7)));
    assert.deepEqual(stored.changed, [1, 2, 3, 4, 0x100, 0x101]);
    assert.deepEqual(
      [...stored.noted].sort((a, b) => a - b),
      stored.changed,
    );
    assert.deepEqual([...during(() => translate(other, state, 0x10_5000n, "read")).noted], [4]);
    assert.equal(during(() => translate(other, state, 0x10_5000n, "read")).noted.size, 0);
  });

  it("what a balloon takes", () => {
    written.isWatched = true;
    memory.slice(BUFFER, 8 * PAGE_SIZE).fill(1);
    const { changed, noted } = during(() => new MappedGuestPages(memory).release(BUFFER, 3 * PAGE_SIZE));
    assert.deepEqual(changed, [512, 513, 514]);
    assert.deepEqual([...noted], changed);
  });

  it("every page from the first to the last, once", () => {
    written.mark(0, SIZE);
    assert.equal(noted().size, SIZE / PAGE_SIZE);
    assert.equal(noted().size, 0);
    written.mark(SIZE - 1, 1);
    written.mark(31 * PAGE_SIZE + 4095, 2);
    assert.deepEqual([...noted()], [31, 32, SIZE / PAGE_SIZE - 1]);
  });
});
