// Needs: nothing.
import assert from "node:assert/strict";
import { QueueError } from "../../../devices/virtio/queue-error.js";
import { Queue, type QueueFeatures } from "../../../devices/virtio/queue.js";
import { DriverQueue } from "../../helpers/driver-queue.js";
import { FakeMemory } from "../../helpers/fake-memory.js";

const PLAIN: QueueFeatures = { eventIndex: false, indirect: false };
const EVENT: QueueFeatures = { eventIndex: true, indirect: false };

function pair(size: number, features = PLAIN): { memory: FakeMemory; driver: DriverQueue; queue: Queue } {
  const memory = new FakeMemory(0x10000);
  const driver = new DriverQueue(memory, 0x100, size, features.eventIndex);
  return { memory, driver, queue: new Queue(memory, driver, features) };
}

const BUFFER = [{ gpa: 0x8000, length: 64, writable: true }];

describe("queue", () => {
  it("chains come out in the order in which they were made available", () => {
    const { driver, queue } = pair(4);
    assert.equal(queue.pop(), null);
    const heads = [driver.add(BUFFER), driver.add(BUFFER), driver.add(BUFFER)];
    assert.deepEqual(
      heads.map(() => queue.pop()?.head),
      heads,
    );
    assert.equal(queue.pop(), null);
    assert.equal(queue.popped, 3);
  });

  it("used elements are seen once they are published, all at a time", () => {
    const { driver, queue } = pair(4);
    const heads = [driver.add(BUFFER), driver.add(BUFFER)];
    for (const [index, head] of heads.entries()) {
      queue.pop();
      queue.pushUsed(head, index + 10);
    }
    assert.deepEqual(driver.collect(), []);
    assert.equal(queue.publishUsed(), true);
    assert.deepEqual(driver.collect(), [
      { id: heads[0], length: 10 },
      { id: heads[1], length: 11 },
    ]);
  });

  it("nothing pushed: nothing published, no interrupt", () => {
    assert.equal(pair(4).queue.publishUsed(), false);
    assert.equal(pair(4, EVENT).queue.publishUsed(), false);
  });

  for (const features of [PLAIN, EVENT]) {
    it(`goes on past 2^16 chains, ${features.eventIndex ? "with" : "without"} EVENT_IDX`, () => {
      const { driver, queue } = pair(2, features);
      for (let round = 0; round < 0x1_0003; round++) {
        const head = driver.add(BUFFER);
        const wanted = driver.wantsNotification();
        assert.equal(queue.pop()?.head, head, `round ${String(round)}`);
        queue.pushUsed(head, round & 0xff);
        assert.equal(queue.publishUsed(), true);
        assert.equal(queue.resumeNotifications(), false);
        assert.equal(wanted, true, `round ${String(round)}`);
        assert.deepEqual(driver.collect(), [{ id: head, length: round & 0xff }]);
        driver.wantInterrupt();
      }
    });
  }

  it("a full ring is legal, one chain more is not", () => {
    const { driver, queue } = pair(4);
    driver.setAvailableIndex(4);
    assert.equal(queue.pop()?.head, 0);
    const other = pair(4);
    other.driver.setAvailableIndex(5);
    assert.throws(() => other.queue.pop(), QueueError);
    assert.throws(() => other.queue.resumeNotifications(), QueueError);
  });

  it("a head outside the table is refused", () => {
    const { driver, queue } = pair(4);
    driver.publish(4);
    assert.throws(() => queue.pop(), QueueError);
  });

  it("what was put back comes out again", () => {
    const { driver, queue } = pair(4);
    const heads = [driver.add(BUFFER), driver.add(BUFFER)];
    queue.pop();
    queue.pop();
    queue.putBack();
    assert.equal(queue.popped, 1);
    assert.equal(queue.pop()?.head, heads[1]);
    assert.equal(queue.pop(), null);
  });

  it("the driver's NO_INTERRUPT is heard, and without EVENT_IDX nothing else", () => {
    const { driver, queue } = pair(4);
    driver.refuseInterrupts();
    queue.pushUsed(0, 0);
    assert.equal(queue.publishUsed(), false);
    driver.wantInterrupt();
    queue.pushUsed(1, 0);
    assert.equal(queue.publishUsed(), true);
  });

  it("EVENT_IDX: an interrupt when the used index passes used_event, and not before or after", () => {
    const { driver, queue } = pair(8, EVENT);
    driver.wantInterrupt(2);
    const wanted = [0, 1, 2, 3].map((id) => {
      queue.pushUsed(id, 0);
      return queue.publishUsed();
    });
    assert.deepEqual(wanted, [false, false, true, false]);
  });

  it("EVENT_IDX: one interrupt for a batch that passes used_event in its middle", () => {
    const { driver, queue } = pair(8, EVENT);
    driver.wantInterrupt(1);
    for (const id of [0, 1, 2]) queue.pushUsed(id, 0);
    assert.equal(queue.publishUsed(), true);
    driver.refuseInterrupts();
    queue.pushUsed(3, 0);
    assert.equal(queue.publishUsed(), false);
  });

  for (const features of [PLAIN, EVENT]) {
    const how = features.eventIndex ? "with" : "without";
    it(`notifications: suppressed while serving, wanted after, none lost in between, ${how} EVENT_IDX`, () => {
      const { driver, queue } = pair(8, features);
      driver.add(BUFFER);
      assert.equal(driver.wantsNotification(), true);
      queue.suppressNotifications();
      queue.pop();
      driver.add(BUFFER);
      assert.equal(driver.wantsNotification(), false);
      assert.equal(queue.resumeNotifications(), true);
      assert.notEqual(queue.pop(), null);
      assert.equal(queue.resumeNotifications(), false);
      driver.add(BUFFER);
      assert.equal(driver.wantsNotification(), true);
    });
  }

  it("a stopped queue is empty and writes nothing", () => {
    const { memory, driver, queue } = pair(4);
    const head = driver.add(BUFFER);
    queue.pop();
    queue.pushUsed(head, 1);
    const before = memory.bytes.slice();
    queue.stop();
    queue.pushUsed(head, 1);
    queue.suppressNotifications();
    assert.equal(queue.publishUsed(), false);
    assert.equal(queue.resumeNotifications(), false);
    assert.equal(queue.pop(), null);
    assert.deepEqual(memory.bytes, before);
  });
});
