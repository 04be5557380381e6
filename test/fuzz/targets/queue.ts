// The queue over rings of any content, with calls in any order.
import assert from "node:assert/strict";
import type { DescriptorChain } from "../../../devices/virtio/chain.js";
import { Reader } from "../../../devices/virtio/cursor.js";
import { Queue } from "../../../devices/virtio/queue.js";
import { DriverQueue } from "../../helpers/driver-queue.js";
import { disturb, publishChain } from "../hostile-driver.js";
import { HostileMemory, type RamLayout } from "../hostile-memory.js";
import type { Random } from "../random.js";
import { allowQueueError, type FuzzTarget } from "../target.js";

const RAM = 0x4000;
const OPERATIONS = 60;

function checkChain(memory: HostileMemory, chain: DescriptorChain, size: number): void {
  const { readable, writable } = chain;
  assert.ok(readable.count + writable.count <= size, "more segments than descriptors");
  for (const { gpas, lengths, count } of [readable, writable]) {
    for (let index = 0; index < count; index++) {
      const gpa = gpas[index] ?? NaN;
      const length = lengths[index] ?? NaN;
      assert.ok(length > 0 && memory.contains(gpa, length), `segment ${String(gpa)}+${String(length)}`);
    }
  }
}

export const queueTarget: FuzzTarget = {
  name: "queue",
  run(random: Random, layout: RamLayout) {
    const memory = new HostileMemory(RAM, random, layout);
    const size = 2 ** random.below(5);
    const features = { eventIndex: random.oneIn(2), indirect: !random.oneIn(3) };
    const driver = new DriverQueue(memory, layout === "flat" ? 0x100 : memory.heapGpa, size, features.eventIndex);
    const queue = new Queue(memory, driver, features);
    const reader = new Reader(memory);
    const usedLength = 4 + 8 * size + 2;
    memory.writable = [{ gpa: driver.usedGpa, length: usedLength }];
    memory.changeOneIn = random.pick([0, 0, 5, 50]);
    // The longest walk: every descriptor once, four words each, and one indirection.
    const maxAccesses = 4 * (size + 1) + 8;
    let isHeld = false;

    const operations: readonly (() => void)[] = [
      () => {
        const chain = queue.pop();
        isHeld = chain !== null;
        if (chain === null) return;
        checkChain(memory, chain, size);
        assert.ok(memory.accesses <= maxAccesses, `${String(memory.accesses)} accesses`);
        reader.start(chain.readable);
        reader.readBytes(new Uint8Array(Math.min(reader.remaining, 64)));
      },
      () => {
        if (isHeld) queue.putBack();
        isHeld = false;
      },
      () => queue.pushUsed(random.value(), random.value()),
      () => void queue.publishUsed(),
      () => queue.suppressNotifications(),
      () => void queue.resumeNotifications(),
      () => {
        if (random.oneIn(20)) queue.stop();
      },
    ];
    for (let count = 0; count < OPERATIONS; count++) {
      random.operations++;
      if (random.oneIn(2)) disturb(random, memory, driver);
      if (random.oneIn(3)) publishChain(random, memory, driver);
      memory.accesses = 0;
      allowQueueError(random.oneIn(2) ? (operations[0] ?? (() => undefined)) : random.pick(operations));
      assert.ok(memory.accesses <= maxAccesses + 64, `${String(memory.accesses)} accesses`);
    }
  },
};
