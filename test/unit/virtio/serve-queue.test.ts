// Needs: nothing. How every device serves a queue: turns, notifications, interrupts, and a queue that is stopped.
import assert from "node:assert/strict";
import { VIRTQ_USED_F_NO_NOTIFY } from "../../../devices/virtio/constants.js";
import { Queue } from "../../../devices/virtio/queue.js";
import { serveQueue, Turn, type Step, type TurnLimits } from "../../../devices/virtio/serve-queue.js";
import { DriverQueue } from "../../helpers/driver-queue.js";
import { FakeMemory } from "../../helpers/fake-memory.js";

interface Rig {
  readonly memory: FakeMemory;
  readonly driver: DriverQueue;
  readonly queue: Queue;
  interrupts: number;
  serve(limits: TurnLimits, step?: (turn: Turn) => Step, now?: () => number): boolean;
  /** Takes a chain and gives it back. */
  readonly take: () => Step;
  /** The driver is asked for notifications. */
  isHeard(): boolean;
}

function rig(chains: number): Rig {
  const memory = new FakeMemory(0x4000);
  const driver = new DriverQueue(memory, 0x1000, 16, false);
  const queue = new Queue(memory, driver, { eventIndex: false, indirect: false });
  const context = { interrupt: () => m.interrupts++ };
  const m: Rig = {
    memory,
    driver,
    queue,
    interrupts: 0,
    serve: (limits, step = m.take, now) => serveQueue(queue, context, new Turn(limits, now), step),
    take: () => {
      const chain = queue.pop();
      if (chain === null) return "empty";
      queue.pushUsed(chain.head, 0);
      return "done";
    },
    isHeard: () => (memory.readU16(driver.usedGpa) & VIRTQ_USED_F_NO_NOTIFY) === 0,
  };
  for (let index = 0; index < chains; index++) driver.add([{ gpa: 0x2000, length: 4 }]);
  return m;
}

describe("serving a queue", () => {
  it("takes all that is there, with one interrupt, and asks for notifications at the end", () => {
    const m = rig(5);
    assert.equal(m.serve({ steps: 100 }), false);
    assert.deepEqual([m.driver.collect().length, m.interrupts, m.isHeard()], [5, 1, true]);
    assert.equal(m.serve({ steps: 100 }), false);
    assert.equal(m.interrupts, 1, "nothing new, no interrupt");
  });

  it("a turn has so many steps, publishes what it has done, and says that there is more", () => {
    const m = rig(5);
    assert.equal(m.serve({ steps: 3 }), true);
    assert.deepEqual([m.driver.collect().length, m.interrupts, m.isHeard()], [3, 1, false]);
    assert.equal(m.serve({ steps: 3 }), false);
    assert.deepEqual([m.driver.collect().length, m.interrupts, m.isHeard()], [2, 2, true]);
    // The last step of a turn: whether there is more, the next turn sees.
    const exact = rig(3);
    assert.equal(exact.serve({ steps: 3 }), true);
    assert.equal(exact.serve({ steps: 3 }), false);
  });

  it("a turn ends with its amount, which one step may overdraw", () => {
    const spend =
      (m: Rig, amount: number) =>
      (turn: Turn): Step => {
        turn.spend(amount);
        return m.take();
      };
    for (const [amount, steps] of [
      [10, 1],
      [6, 2],
      [5, 2],
      [4, 3],
      [11, 1],
    ] as const) {
      const m = rig(5);
      assert.equal(m.serve({ steps: 100, amount: 10 }, spend(m, amount)), true);
      assert.equal(m.driver.collect().length, steps, String(amount));
    }
    const turn = new Turn({ steps: 1, amount: 10 });
    turn.spend(3);
    assert.deepEqual([turn.amount, turn.isOver], [7, false]);
    turn.spend(7);
    assert.deepEqual([turn.amount, turn.isOver], [0, true]);
    assert.equal(new Turn({ steps: 0 }).isOver, true);
    assert.equal(new Turn({ steps: 1 }).amount, Infinity);
  });

  it("a turn ends with its time, and time counts from its begin", () => {
    let now = 1000;
    const m = rig(5);
    const slow = (): Step => {
      now += 1;
      return m.take();
    };
    assert.equal(
      m.serve({ steps: 100, ms: 2 }, slow, () => now),
      true,
    );
    assert.equal(m.driver.collect().length, 2);
    assert.equal(
      m.serve({ steps: 100, ms: 9 }, slow, () => now),
      false,
    );
    assert.equal(m.driver.collect().length, 3);
    // Without a limit nobody looks at the clock.
    m.serve({ steps: 1 }, m.take, () => assert.fail("looked"));
  });

  it("a step that waits for somebody else ends the turn without asking for notifications", () => {
    const m = rig(3);
    let steps = 0;
    assert.equal(
      m.serve({ steps: 100 }, () => (steps++ === 1 ? "waiting" : m.take())),
      false,
    );
    assert.deepEqual([m.driver.collect().length, m.interrupts, m.isHeard()], [1, 1, false]);
  });

  it("what arrives while notifications are off is not missed", () => {
    const m = rig(1);
    let hasAdded = false;
    const step = (): Step => {
      const result = m.take();
      // The driver adds a chain after the device has seen the end, and need not notify.
      if (result === "empty" && !hasAdded) {
        hasAdded = true;
        assert.equal(m.isHeard(), false);
        m.driver.add([{ gpa: 0x2000, length: 4 }]);
      }
      return result;
    };
    assert.equal(m.serve({ steps: 100 }, step), false);
    assert.equal(m.driver.collect().length, 2);
    // A driver that never stops does not get more than a turn.
    const endless = rig(1);
    let taken = 0;
    const again = (): Step => {
      const result = endless.take();
      if (result === "empty") {
        endless.driver.collect();
        endless.driver.add([{ gpa: 0x2000, length: 4 }]);
      } else taken++;
      return result;
    };
    assert.equal(endless.serve({ steps: 20 }, again), true);
    assert.equal(taken, 10);
  });

  it("a stopped queue is not touched, nor is what was taken from it", () => {
    const m = rig(2);
    m.queue.stop();
    const before = m.memory.bytes.slice();
    assert.equal(
      m.serve({ steps: 100 }, () => assert.fail("served")),
      false,
    );
    assert.deepEqual([m.memory.bytes, m.interrupts], [before, 0]);
  });
});
