// Needs: nothing. The driver that the tests play, against bytes written out by hand:
// without this, a mistake in the double and the same mistake in the device would agree.
import assert from "node:assert/strict";
import { DriverQueue } from "../../helpers/driver-queue.js";
import { FakeLoop } from "../../helpers/fake-loop.js";
import { FakeMemory } from "../../helpers/fake-memory.js";

function hex(memory: FakeMemory, gpa: number, length: number): string {
  return Buffer.from(memory.slice(gpa, length)).toString("hex");
}

describe("virtio driver (test double)", () => {
  it("lays the areas of a queue of 4 out as virtio 1.2 §2.7 says", () => {
    const queue = new DriverQueue(new FakeMemory(0x2000), 0x1000, 4, true);
    assert.equal(queue.descriptorGpa, 0x1000);
    assert.equal(queue.availableGpa, 0x1040, "after 4 descriptors of 16 bytes");
    assert.equal(queue.usedEventGpa, 0x104c, "after flags, idx and 4 entries of 2 bytes");
    assert.equal(queue.usedGpa, 0x1050, "after used_event, at the next multiple of 4");
    assert.equal(queue.availEventGpa, 0x1074, "after flags, idx and 4 elements of 8 bytes");
    assert.ok(DriverQueue.bytesFor(4) >= 0x76);
  });

  it("writes a chain: address, length, flags, next, then the available ring", () => {
    const memory = new FakeMemory(0x2000);
    const queue = new DriverQueue(memory, 0x1000, 4, false);
    const head = queue.add([
      { gpa: 0x1_2345_6789, length: 0x10 },
      { gpa: 0xabc, length: 0x201, writable: true },
    ]);
    assert.equal(head, 0);
    assert.equal(hex(memory, 0x1000, 16), "8967452301000000" + "10000000" + "0100" + "0100");
    assert.equal(hex(memory, 0x1010, 16), "bc0a000000000000" + "01020000" + "0200" + "0000");
    assert.equal(hex(memory, 0x1040, 6), "0000" + "0100" + "0000");
    assert.equal(queue.add([{ gpa: 0, length: 1 }]), 2);
    assert.equal(hex(memory, 0x1040, 8), "0000" + "0200" + "0000" + "0200");
  });

  it("writes an indirect table, and one descriptor for it", () => {
    const memory = new FakeMemory(0x2000);
    const queue = new DriverQueue(memory, 0x1000, 4, false);
    queue.addIndirect(0x800, [
      { gpa: 0x10, length: 1 },
      { gpa: 0x20, length: 2, writable: true },
    ]);
    assert.equal(hex(memory, 0x1000, 16), "0008000000000000" + "20000000" + "0400" + "0000");
    assert.equal(hex(memory, 0x800, 32), "100000000000000001000000010001002000000000000000020000000200" + "0000");
  });

  it("takes used elements, and gives their descriptors out again", () => {
    const memory = new FakeMemory(0x2000);
    const queue = new DriverQueue(memory, 0x1000, 2, false);
    const buffers = [
      { gpa: 0, length: 1 },
      { gpa: 0, length: 1 },
    ];
    const head = queue.add(buffers);
    assert.throws(() => queue.add(buffers), /in use/);
    memory.writeU32(queue.usedGpa + 4, head);
    memory.writeU32(queue.usedGpa + 8, 77);
    assert.deepEqual(queue.collect(), []);
    memory.writeU16(queue.usedGpa + 2, 1);
    assert.deepEqual(queue.collect(), [{ id: head, length: 77 }]);
    queue.add(buffers);
  });

  it("says where it wants the next interrupt, and hears where a notification is wanted", () => {
    const memory = new FakeMemory(0x2000);
    const queue = new DriverQueue(memory, 0x1000, 4, true);
    queue.wantInterrupt(3);
    assert.equal(memory.readU16(queue.usedEventGpa), 3);
    queue.refuseInterrupts();
    assert.equal(memory.readU16(queue.usedEventGpa), 0xffff);
    memory.writeU16(queue.availEventGpa, 1);
    queue.publish(0);
    assert.equal(queue.wantsNotification(), false);
    queue.publish(0);
    assert.equal(queue.wantsNotification(), true);
    const plain = new DriverQueue(memory, 0x1000, 4, false);
    plain.publish(0);
    assert.equal(plain.wantsNotification(), true);
    memory.writeU16(plain.usedGpa, 1);
    assert.equal(plain.wantsNotification(), false);
    plain.refuseInterrupts();
    assert.equal(memory.readU16(plain.availableGpa), 1);
  });
});

describe("fake loop (test double)", () => {
  it("time passes when told, timers run in order and can be taken back", () => {
    const loop = new FakeLoop();
    const seen: string[] = [];
    loop.after(20, () => seen.push(`b at ${String(loop.now())}`));
    loop.after(10, () => seen.push(`a at ${String(loop.now())}`));
    const cancel = loop.after(15, () => seen.push("cancelled"));
    cancel();
    loop.advance(9);
    assert.deepEqual(seen, []);
    loop.advance(11);
    assert.deepEqual(seen, ["a at 10", "b at 20"]);
    assert.equal(loop.timerCount, 0);
  });

  it("what is deferred in a turn waits for the next", () => {
    const loop = new FakeLoop();
    let runs = 0;
    const again = (): void => {
      if (++runs < 3) loop.defer(again);
    };
    loop.defer(again);
    assert.equal(loop.turn(), true);
    assert.equal(runs, 1);
    assert.equal(loop.settle(), 2);
    assert.equal(runs, 3);
  });
});
