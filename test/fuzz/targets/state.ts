// Every device restored from a state that somebody has spoiled, over memory that is being written to: a state is refused
// with a StateError or served like one that a guest has brought about, and never more than that.
import assert from "node:assert/strict";
import { StateError } from "../../../devices/state.js";
import { VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC } from "../../../devices/virtio/constants.js";
import { VIRTIO_NET_F_MRG_RXBUF } from "../../../devices/virtio/net/constants.js";
import type { DriverQueue } from "../../helpers/driver-queue.js";
import { FakeLoop } from "../../helpers/fake-loop.js";
import { restoreSaved, saved } from "../../helpers/restored.js";
import { virtioMachine } from "../../helpers/virtio-machine.js";
import { disturb, publishChain } from "../hostile-driver.js";
import { HostileMemory, type RamLayout } from "../hostile-memory.js";
import { mutateState } from "../mutate-state.js";
import type { Random } from "../random.js";
import { subject, SUBJECT_KINDS } from "../subjects.js";
import type { FuzzTarget } from "../target.js";

const RAM = 0x2_0000;
/** Spoiled copies of one state that are restored. */
const RESTORES = 8;
const FEATURES = [VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC, VIRTIO_NET_F_MRG_RXBUF, 0, 1];
/** A turn of each queue of a device, a look at every one included. */
const MAX_ACCESSES = 200_000;

export const stateTarget: FuzzTarget = {
  name: "state",
  run(random: Random, layout: RamLayout) {
    const memory = new HostileMemory(RAM, random, layout);
    const loop = new FakeLoop();
    const kind = random.below(SUBJECT_KINDS);
    const first = subject(random, memory, loop, kind);
    const machine = virtioMachine(first.device, loop, memory, memory.heapGpa);
    const isLive = !random.oneIn(6);
    const queues = isLive ? machine.driver.start({ features: FEATURES, queueSize: 2 ** random.below(5) }) : [];
    for (let left = random.below(12); left > 0 && queues.length > 0; left--) {
      publishChain(random, memory, random.pick(queues));
      if (random.oneIn(2)) machine.transport.notify(random.below(queues.length));
      if (random.oneIn(3)) first.stir();
      if (random.oneIn(3)) loop.turn();
    }
    // No device here has anything in flight: that it is done at once is no promise's matter.
    void machine.transport.quiesce();
    loop.settle();
    const state = saved(machine);
    for (let left = RESTORES; left > 0; left--) {
      random.operations++;
      restoreSpoiled(random, memory, loop, { kind, state, queues });
    }
  },
};

interface Saved {
  readonly kind: number;
  readonly state: unknown;
  /** What the guest has used before. */
  readonly queues: readonly DriverQueue[];
}

function restoreSpoiled(random: Random, memory: HostileMemory, loop: FakeLoop, { kind, state, queues }: Saved): void {
  memory.changeOneIn = 0;
  const spoiled = mutateState(random, state, random.pick([0, 1, 1, 1, 2, 5]));
  if (queues.length > 0 && random.oneIn(3)) disturb(random, memory, random.pick(queues));

  const second = subject(random, memory, loop, kind);
  const other = virtioMachine(second.device, loop, memory, memory.heapGpa);
  memory.changeOneIn = random.pick([0, 0, 5, 50]);
  memory.accesses = 0;
  try {
    restoreSaved(other, spoiled);
  } catch (error) {
    if (!(error instanceof StateError)) throw error;
    assert.ok(error.message.startsWith(error.path) && error.message.length < 500, error.message);
    return;
  }
  other.transport.unquiesce();
  for (let left = 10; left > 0; left--) {
    random.operations++;
    if (queues.length > 0 && random.oneIn(3)) publishChain(random, memory, random.pick(queues));
    other.transport.notify(random.below(4));
    second.stir();
    loop.advance(random.below(500));
    loop.turn();
    assert.ok(memory.accesses <= MAX_ACCESSES, `${String(memory.accesses)} accesses`);
    memory.accesses = 0;
  }

  if (random.oneIn(2)) return;
  // It is saved as any other, and a driver can begin anew with it.
  memory.changeOneIn = 0;
  void other.transport.quiesce();
  loop.settle();
  const third = virtioMachine(subject(random, memory, loop, kind).device, loop, memory, memory.heapGpa);
  restoreSaved(third, saved(other));
  third.transport.unquiesce();
  assert.ok(third.driver.start({ features: FEATURES }).length > 0);
}
