// The life of a device in any order: drivers that come, go and stop in the middle, registers written as nobody writes them, disks and
// limits that are exchanged, pauses with what is in flight, states that are saved, spoiled and restored into another device, the end.
// What the host has begun comes to its end at any time, also when nobody waits for it any more: nothing of that may throw.
import assert from "node:assert/strict";
import { StateError } from "../../../devices/state.js";
import {
  VIRTIO_MMIO_STATUS,
  VIRTIO_RING_F_EVENT_IDX,
  VIRTIO_RING_F_INDIRECT_DESC,
} from "../../../devices/virtio/constants.js";
import type { DriverQueue } from "../../helpers/driver-queue.js";
import { FakeLoop } from "../../helpers/fake-loop.js";
import { restoreSaved, saved } from "../../helpers/restored.js";
import { virtioMachine, type VirtioMachine } from "../../helpers/virtio-machine.js";
import { disturb, publishChain } from "../hostile-driver.js";
import { HostileMemory, type RamLayout } from "../hostile-memory.js";
import { mutateState } from "../mutate-state.js";
import type { Random } from "../random.js";
import { subject, SUBJECT_KINDS, type Subject } from "../subjects.js";
import type { FuzzTarget } from "../target.js";

const RAM = 0x2_0000;
const STEPS = 60;
/** A turn of each queue of a device, several times over. */
const MAX_ACCESSES = 400_000;
const FEATURES = [VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC, 0, 1, 2, 3, 5, 9, 13, 14, 15];
/** All of the window, and some more. */
const REGISTERS = 0x140;

class Life {
  readonly #random: Random;
  readonly #memory: HostileMemory;
  readonly #loop = new FakeLoop();
  readonly #kind: number;
  #subject: Subject;
  #machine: VirtioMachine<HostileMemory>;
  #queues: readonly DriverQueue[] = [];
  /** Settles once all is at rest; undefined while the guest runs. */
  #pause: Promise<void> | undefined;
  /** How often the guest had been interrupted when it was paused, and all had come to rest; undefined before that. */
  #restingInterrupts: number | undefined;
  /** Devices that have been restored elsewhere or stopped: what was theirs may still come to an end. */
  readonly #gone: Subject[] = [];

  constructor(random: Random, layout: RamLayout) {
    this.#random = random;
    this.#memory = new HostileMemory(RAM, random, layout);
    this.#kind = random.below(SUBJECT_KINDS);
    this.#subject = subject(random, this.#memory, this.#loop, this.#kind);
    this.#machine = virtioMachine(this.#subject.device, this.#loop, this.#memory, this.#memory.heapGpa);
    this.#memory.changeOneIn = random.pick([0, 0, 5, 50]);
  }

  async run(): Promise<void> {
    const random = this.#random;
    for (let left = STEPS; left > 0; left--) {
      random.operations++;
      this.#memory.accesses = 0;
      if (random.oneIn(8)) await this.#pauseOrResume();
      else random.pick(this.#pause === undefined ? this.#anyTime.concat(this.#whileRunning) : this.#anyTime)();
      assert.ok(this.#memory.accesses <= MAX_ACCESSES, `${String(this.#memory.accesses)} accesses`);
      const { interrupts } = this.#machine;
      assert.equal(interrupts, this.#restingInterrupts ?? interrupts, "an interrupt of a device that is quiet");
    }
    await this.#end();
  }

  /** Of the host and its programs, guest or not. */
  readonly #anyTime: readonly (() => void)[] = [
    () => this.#subject.stir(),
    () => this.#subject.stir(),
    () => this.#random.pick(this.#subject.controls)(),
    () => void this.#loop.turn(),
    () => void this.#loop.turn(),
    () => this.#loop.advance(this.#random.pick([1, 50, 2000])),
    () => {
      for (const gone of this.#gone) gone.stir();
    },
  ];

  /** Of the guest, which stands while it is paused. */
  readonly #whileRunning: readonly (() => void)[] = [
    () => this.#start(),
    () => this.#request(),
    () => this.#request(),
    () => this.#request(),
    () => this.#request(),
    () => this.#machine.transport.notify(this.#random.below(6)),
    () => {
      const value = this.#machine.transport.read(this.#random.below(REGISTERS), this.#random.pick([1, 2, 4]));
      assert.ok(Number.isInteger(value) && value >= 0 && value <= 0xffff_ffff);
    },
    // Seldom: each ends what this driver can do, or some of it.
    () => {
      if (this.#random.oneIn(4)) this.#random.pick(this.#troubles)();
    },
  ];

  readonly #troubles: readonly (() => void)[] = [
    () => {
      if (this.#queues.length > 0) publishChain(this.#random, this.#memory, this.#random.pick(this.#queues));
    },
    () => {
      if (this.#queues.length > 0) disturb(this.#random, this.#memory, this.#random.pick(this.#queues));
    },
    () => {
      const { transport } = this.#machine;
      transport.write(this.#random.below(REGISTERS), this.#random.pick([1, 2, 4]), this.#random.value());
    },
    () => this.#machine.transport.write(VIRTIO_MMIO_STATUS, 4, this.#random.below(256)),
    () => this.#memory.asGuest(() => this.#machine.driver.stopQueue(this.#random.below(4))),
    () => this.#machine.driver.reset(),
  ];

  #request(): void {
    if (this.#queues.length === 0) this.#start();
    const index = this.#random.below(this.#queues.length);
    const queue = this.#queues[index];
    if (queue === undefined) return;
    if (this.#subject.request === undefined) publishChain(this.#random, this.#memory, queue);
    else this.#subject.request(queue, index);
    if (!this.#random.oneIn(4)) this.#machine.transport.notify(index);
  }

  #start(): void {
    const random = this.#random;
    const features = FEATURES.filter(() => random.oneIn(2));
    this.#memory.asGuest(() => {
      this.#queues = this.#machine.driver.start({ features, queueSize: 2 ** random.pick([0, 2, 3, 4]) });
    });
  }

  async #pauseOrResume(): Promise<void> {
    if (this.#pause === undefined) {
      this.#pause = this.#machine.transport.quiesce();
      return;
    }
    if (this.#restingInterrupts === undefined) {
      await this.#rest(this.#pause);
      this.#restingInterrupts = this.#machine.interrupts;
      // Somebody may be saving it.
      this.#memory.writable = [];
      return;
    }
    if (this.#random.oneIn(2)) this.#restoreElsewhere();
    this.#resume();
  }

  #resume(): void {
    this.#memory.writable = undefined;
    this.#restingInterrupts = undefined;
    this.#machine.transport.unquiesce();
    this.#pause = undefined;
  }

  /** What is in flight comes to its end, as it does while a guest that is to be saved is waited for. */
  async #rest(pause: Promise<void>): Promise<void> {
    const now = { isAtRest: false };
    void pause.then(() => (now.isAtRest = true));
    for (let turns = 0; !now.isAtRest; turns++) {
      assert.ok(turns < 1000, "it never comes to rest");
      this.#subject.stir();
      this.#loop.turn();
      await Promise.resolve();
      await Promise.resolve();
    }
  }

  #restoreElsewhere(): void {
    const random = this.#random;
    if (this.#subject.device.whyNotSaved?.() !== undefined) return;
    const state = mutateState(random, saved(this.#machine), random.pick([0, 0, 0, 1]));
    const next = subject(random, this.#memory, this.#loop, this.#kind);
    const machine = virtioMachine(next.device, this.#loop, this.#memory, this.#memory.heapGpa);
    try {
      restoreSaved(machine, state);
    } catch (error) {
      // The guest goes on where it was.
      if (!(error instanceof StateError)) throw error;
      return;
    }
    this.#subject.device.reset();
    this.#gone.push(this.#subject);
    this.#subject = next;
    this.#machine = machine;
    // The line is that of the machine before.
    machine.interrupts = this.#restingInterrupts ?? 0;
  }

  async #end(): Promise<void> {
    this.#memory.changeOneIn = 0;
    if (this.#pause !== undefined) {
      await this.#rest(this.#pause);
      this.#resume();
    }
    // A driver can begin anew, whatever was before.
    this.#start();
    assert.ok(this.#queues.length > 0);
    this.#subject.device.reset();
    this.#gone.push(this.#subject);
    // The guest's memory may be somebody else's from here on.
    this.#memory.writable = [];
    for (let left = 5; left > 0; left--) {
      for (const gone of this.#gone) gone.stir();
      this.#loop.advance(10_000);
      for (let turns = 0; this.#loop.turn(); turns++) assert.ok(turns < 10_000, "it never rests");
    }
  }
}

export const lifeTarget: FuzzTarget = {
  name: "life",
  run: (random, layout) => new Life(random, layout).run(),
};
