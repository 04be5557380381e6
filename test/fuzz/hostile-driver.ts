// What a driver that means harm writes into a queue: chains that are nearly right, because what is
// wrong everywhere is refused at the first look.
import { VIRTQ_DESC_F_INDIRECT, VIRTQ_DESC_F_NEXT, VIRTQ_DESC_F_WRITE } from "../../devices/virtio/constants.js";
import type { DriverQueue } from "../helpers/driver-queue.js";
import type { HostileMemory } from "./hostile-memory.js";
import type { Random } from "./random.js";

/** An address: mostly in RAM, sometimes at its end, sometimes nowhere. */
export function randomGpa(random: Random, memory: HostileMemory): number {
  switch (random.below(8)) {
    case 0:
      return random.value() + random.value() * 2 ** 32;
    case 1:
      return memory.end - random.below(64);
    case 2:
      return random.value();
    default:
      return memory.at(random.below(memory.heapSize));
  }
}

/** A descriptor somewhere in the table, or in an indirect one. */
export function writeRandomDescriptor(random: Random, memory: HostileMemory, queue: DriverQueue): void {
  const index = random.below(queue.size);
  const flags = random.oneIn(4) ? random.value() & 0xffff : random.below(8);
  const next = random.oneIn(6) ? random.value() & 0xffff : random.below(queue.size);
  const length = random.oneIn(3) ? random.value() : 16 * random.below(queue.size + 2);
  const descriptor = { gpa: randomGpa(random, memory), length, flags, next };
  if (random.oneIn(3)) {
    const table = 16 * random.below(memory.heapSize / 16 - queue.size);
    queue.writeDescriptor(index, descriptor, memory.at(table, 16 * queue.size));
  } else queue.writeDescriptor(index, descriptor);
}

/** A table that names itself as an indirect table. */
function publishIndirectLoop(random: Random, memory: HostileMemory, queue: DriverQueue): void {
  const gpa = memory.at(16 * random.below(memory.heapSize / 16 - 1), 16);
  const head = random.below(queue.size);
  const descriptor = { gpa, length: 16, flags: VIRTQ_DESC_F_INDIRECT, next: 0 };
  queue.writeDescriptor(0, descriptor, gpa);
  queue.writeDescriptor(head, descriptor);
  queue.publish(head);
}

/** One change to the rings, as one store by the driver would make it. */
export function disturb(random: Random, memory: HostileMemory, queue: DriverQueue): void {
  memory.asGuest(() => {
    switch (random.below(9)) {
      case 0:
        queue.setAvailableIndex(random.value());
        break;
      case 1:
        queue.publish(random.value() & 0xffff);
        break;
      case 2:
        memory.writeU16(queue.availableGpa, random.value() & 0xffff);
        break;
      case 3:
        memory.writeU16(queue.usedEventGpa, random.value() & 0xffff);
        break;
      case 4:
        memory.writeU8(memory.at(random.below(memory.heapSize)), random.u32() & 0xff);
        break;
      case 5:
        queue.publish(random.below(queue.size));
        break;
      case 6:
        publishIndirectLoop(random, memory, queue);
        break;
      default:
        writeRandomDescriptor(random, memory, queue);
    }
  });
}

/** A proper chain of `count` descriptors at the table's start, buffers in RAM, then disturbed or not. */
export function publishChain(random: Random, memory: HostileMemory, queue: DriverQueue): void {
  memory.asGuest(() => {
    const start = random.below(queue.size);
    const count = 1 + random.below(queue.size);
    const firstWritable = random.below(count + 1);
    for (let position = 0; position < count; position++) {
      const isLast = position + 1 === count;
      const length = 1 + random.below(random.oneIn(3) ? 0x600 : 32);
      queue.writeDescriptor((start + position) % queue.size, {
        gpa: memory.at(random.below(memory.heapSize - length), length),
        length,
        flags: (isLast ? 0 : VIRTQ_DESC_F_NEXT) | (position >= firstWritable ? VIRTQ_DESC_F_WRITE : 0),
        next: (start + position + 1) % queue.size,
      });
    }
    queue.publish(start);
  });
}
