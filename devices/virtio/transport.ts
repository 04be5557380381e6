// What every transport has: the device's status, the negotiation of features, the queues, and when a queue is served. The
// registers through which a driver reaches it are a subclass's: mmio-transport.ts, pci-transport.ts. virtio 1.2 §2.1, §2.2, §3.1.
// Left out on purpose: queue reset.
import type { GuestMemory } from "../contracts.js";
import { hex64, type State, type StateReader } from "../state.js";
import {
  VIRTIO_CONFIG_S_FAILED,
  VIRTIO_CONFIG_S_NEEDS_RESET,
  VIRTIO_F_VERSION_1,
  VIRTIO_RING_F_EVENT_IDX,
  VIRTIO_RING_F_INDIRECT_DESC,
} from "./constants.js";
import type { ActivationContext, VirtioDevice } from "./device.js";
import type { EventLoop } from "./event-loop.js";
import { featureSet, hasFeature } from "./features.js";
import { LimitedReport } from "./limited-report.js";
import { QueueError } from "./queue-error.js";
import { QueueRegisters } from "./queue-registers.js";
import { Queue, type QueueAddresses, type QueueIndices } from "./queue.js";
import { isLegalTransition, STATUS_DRIVER, STATUS_DRIVER_OK, STATUS_FEATURES_OK } from "./status.js";
import type { TransportState } from "./transport-state.js";

const TRANSPORT_FEATURES = featureSet(VIRTIO_F_VERSION_1, VIRTIO_RING_F_INDIRECT_DESC, VIRTIO_RING_F_EVENT_IDX);
const NO_QUEUE: QueueAddresses = { size: 0, descriptorGpa: 0, availableGpa: 0, usedGpa: 0 };

/** Why the driver is interrupted: a queue's number, for used buffers, or this, for another configuration. */
export const CONFIG_SOURCE = -1;

/** What the machine gives to any transport. */
export interface TransportOptions {
  readonly device: VirtioDevice;
  readonly memory: GuestMemory;
  readonly loop: EventLoop;
  /** Takes a line for the log. */
  readonly report: (line: string) => void;
}

export abstract class VirtioTransport {
  readonly name: string;
  readonly counters = {
    notifications: 0,
    interrupts: 0,
    configInterrupts: 0,
    refusedWrites: 0,
    failures: 0,
    resets: 0,
  };
  /** The device, for statistics. */
  readonly device: VirtioDevice;
  protected readonly memory: GuestMemory;
  /** Feature bits of device and transport. */
  protected readonly offered: bigint;
  /** What a saved driver may have chosen: a device serves by itself what was begun where more was offered. */
  protected readonly restorable: bigint;
  protected readonly queues: readonly QueueRegisters[];
  // Registers as the driver has written them.
  protected deviceFeaturesSel = 0;
  protected driverFeaturesSel = 0;
  protected queueSel = 0;
  protected configGeneration = 0;
  readonly #loop: EventLoop;
  readonly #report: LimitedReport;
  /** Which queues a later turn will serve. */
  readonly #waiting: boolean[];
  /** The driver's status bits; DEVICE_NEEDS_RESET is ours and kept apart. */
  #status = 0;
  #needsReset = false;
  #driverFeatures = 0n;
  /** The queues of a live device, none otherwise. */
  #live: readonly Queue[] = [];
  /** The loop has been asked for that turn. */
  #isDeferred = false;
  /** Nothing is served, and nobody interrupted, for the time being. */
  #isQuiet = false;
  /** What the driver is told of once that is over. */
  readonly #owed = new Set<number>();

  protected constructor({ device, memory, loop, report }: TransportOptions) {
    this.device = device;
    this.memory = memory;
    this.#loop = loop;
    this.#report = new LimitedReport(loop, report);
    this.name = device.name;
    this.restorable = device.offeredFeatures | TRANSPORT_FEATURES;
    this.offered = device.offeredFeatures | (TRANSPORT_FEATURES & ~(device.missingFeatures ?? 0n));
    this.queues = device.queueMaxSizes.map((maxSize) => new QueueRegisters(maxSize));
    this.#waiting = this.queues.map(() => false);
  }

  /** Notes why the driver will be interrupted, where it looks for that. */
  protected abstract mark(source: number): void;
  /** Interrupts the driver, for all of these. */
  protected abstract interrupt(sources: Iterable<number>): void;
  /** The device's status has changed by itself. */
  protected abstract statusChanged(): void;
  /** The device's configuration has changed by itself; `configGeneration` is another one. */
  protected abstract configurationChanged(): void;
  /** The device is about to go live. */
  protected abstract beforeLive(): void;

  /** The driver uses the device. */
  get isLive(): boolean {
    return this.#live.length > 0;
  }

  /** Available buffer notification: the register for it, or the ioeventfd that stands for it. */
  notify(queueIndex: number): void {
    if (queueIndex >= this.#live.length) return;
    this.counters.notifications++;
    // A queue that waits for its turn is served then: notifying again does not make it come earlier.
    if (this.#waiting[queueIndex] !== true) this.#serve(queueIndex);
  }

  /** Serves nothing and interrupts nobody until `unquiesce`; done when the device has nothing in flight. */
  async quiesce(): Promise<void> {
    this.#isQuiet = true;
    await this.device.quiesce?.();
  }

  /** Goes on, with a look at every queue: whoever has notified in between is heard. */
  unquiesce(): void {
    this.#isQuiet = false;
    this.device.unquiesce?.();
    if (this.#owed.size > 0) this.interrupt(this.#owed);
    this.#owed.clear();
    for (let queueIndex = 0; queueIndex < this.#live.length; queueIndex++) {
      this.#waiting[queueIndex] = false;
      this.#serve(queueIndex);
    }
  }

  /** Registers and queues; the device's own state is apart. Only while quiet. */
  abstract save(): State;

  /**
   * Takes up both saved states; once, before a driver has come. Stays quiet until `unquiesce`. Throws StateError for
   * what no driver could have brought about.
   */
  abstract restore(state: StateReader, deviceState: StateReader): void;

  /** What all transports save. */
  protected saveCommon(): State {
    return {
      status: this.#status,
      needsReset: this.#needsReset,
      deviceFeaturesSel: this.deviceFeaturesSel,
      driverFeaturesSel: this.driverFeaturesSel,
      driverFeatures: hex64(this.#driverFeatures),
      queueSel: this.queueSel,
      configGeneration: this.configGeneration,
      queues: this.queues.map((queue) => queue.save()),
      rings: this.#live.map((queue, index) => ({ ...queue.indices(this.device.heldChains?.(index) ?? 0) })),
    };
  }

  protected restoreCommon(saved: TransportState, deviceState: StateReader): void {
    this.#isQuiet = true;
    saved.queues.forEach((queue, index) => {
      this.queues[index]?.restore(queue, this.memory);
    });
    this.device.restore(deviceState);

    this.#status = saved.status;
    this.#needsReset = saved.needsReset;
    this.deviceFeaturesSel = saved.deviceFeaturesSel;
    this.driverFeaturesSel = saved.driverFeaturesSel;
    this.#driverFeatures = saved.driverFeatures;
    this.queueSel = saved.queueSel;
    this.configGeneration = saved.configGeneration;
    if (saved.isLive) this.#activate(saved.rings);
  }

  /** The driver may not have been told of it before. */
  protected owe(source: number): void {
    this.#owed.add(source);
  }

  /** The register of the status. */
  protected readStatus(): number {
    return this.#status | (this.#needsReset ? VIRTIO_CONFIG_S_NEEDS_RESET : 0);
  }

  /** The word of the device's features that is selected. */
  protected readDeviceFeatures(): number {
    return featuresWord(this.offered, this.deviceFeaturesSel);
  }

  /** The word of the driver's features that is selected. */
  protected readDriverFeatures(): number {
    return featuresWord(this.#driverFeatures, this.driverFeaturesSel);
  }

  /** False if the driver may not write this now. */
  protected writeDriverFeatures(value: number): boolean {
    if (this.#status !== STATUS_DRIVER || this.driverFeaturesSel > 1) return false;
    const shift = BigInt(32 * this.driverFeaturesSel);
    this.#driverFeatures = (this.#driverFeatures & ~(0xffff_ffffn << shift)) | (BigInt(value) << shift);
    return true;
  }

  /** The selected queue while it may be set up: between FEATURES_OK and DRIVER_OK (§3.1.1). */
  protected queueInSetUp(): QueueRegisters | undefined {
    return this.#status === STATUS_FEATURES_OK ? this.queues[this.queueSel] : undefined;
  }

  /** The selected queue is set up, says the driver. False if that cannot be now. */
  protected enableQueue(): boolean {
    const queue = this.queueInSetUp();
    if (queue === undefined) return false;
    const problem = queue.problem(this.memory);
    if (problem === undefined) queue.isReady = true;
    else this.fail(problem);
    return true;
  }

  /** The driver takes the selected queue back. */
  protected stopQueue(): void {
    // Always allowed: drivers do it while they let go of a device, before or after its reset.
    const queue = this.queues[this.queueSel];
    if (queue !== undefined) queue.isReady = false;
    const live = this.#live[this.queueSel];
    if (live !== undefined && !live.isStopped) {
      live.stop();
      this.device.queueStopped?.(this.queueSel);
    }
  }

  /** False if the driver may not write this now; 0 is a reset. */
  protected writeStatus(value: number): boolean {
    if (value === 0) {
      this.#reset();
      return true;
    }
    const next = value & ~VIRTIO_CONFIG_S_NEEDS_RESET;
    if (next === this.#status) return true;
    if (!isLegalTransition(this.#status, next)) return false;
    // Left unset, FEATURES_OK tells the driver that its choice is refused (§3.1.1).
    if (next === STATUS_FEATURES_OK && !this.#acceptsFeatures()) return false;
    if (next === STATUS_DRIVER_OK && this.#needsReset) return false;
    this.#status = next;
    if (next === STATUS_DRIVER_OK) this.#activate();
    else if ((next & VIRTIO_CONFIG_S_FAILED) !== 0) this.#letGo();
    return true;
  }

  /** DEVICE_NEEDS_RESET: the device is left alone until the driver resets it (§2.1.2). */
  protected fail(reason: string): void {
    this.counters.failures++;
    this.#needsReset = true;
    const isLive = this.#status === STATUS_DRIVER_OK;
    this.#letGo();
    this.statusChanged();
    if (isLive) this.#configChanged();
    this.#report.line(`${this.name}: ${reason}; the device needs a reset`);
  }

  #acceptsFeatures(): boolean {
    const isSubset = (this.#driverFeatures & ~this.offered) === 0n;
    return isSubset && hasFeature(this.#driverFeatures, VIRTIO_F_VERSION_1);
  }

  /** `indices`: where queues go on that are not new. */
  #activate(indices: readonly QueueIndices[] = []): void {
    const features = this.#driverFeatures;
    const queueFeatures = {
      eventIndex: hasFeature(features, VIRTIO_RING_F_EVENT_IDX),
      indirect: hasFeature(features, VIRTIO_RING_F_INDIRECT_DESC),
    };
    const queues = this.queues.map((registers, index) => {
      // The registers of a queue that is not ready have not been checked.
      const addresses = registers.isReady ? registers.addresses() : NO_QUEUE;
      const queue = new Queue(this.memory, addresses, queueFeatures, indices[index]);
      if (!registers.isReady) queue.stop();
      return queue;
    });
    this.#live = queues;
    // A context from before a reset must not act on the device after it, so each call checks.
    const isCurrent = (): boolean => this.#live === queues;
    const context: ActivationContext = {
      memory: this.memory,
      features,
      queues,
      interrupt: (queue) => {
        if (isCurrent()) this.#usedBuffer(queues.indexOf(queue));
      },
      configChanged: () => {
        if (isCurrent()) this.#configChanged();
      },
      serve: (queueIndex) => {
        if (isCurrent() && this.#waiting[queueIndex] !== true) this.#serve(queueIndex);
      },
      fail: (reason) => {
        if (isCurrent()) this.fail(reason);
      },
    };
    this.beforeLive();
    this.device.activate(context);
  }

  #serve(queueIndex: number): void {
    if (this.#isQuiet) {
      this.#waiting[queueIndex] = true;
      return;
    }
    try {
      if (this.device.onAvailable(queueIndex)) this.#serveLater(queueIndex);
    } catch (error) {
      // A driver's mistake is a QueueError; anything else is a bug and must show.
      if (!(error instanceof QueueError)) throw error;
      this.fail(error.message);
    }
  }

  #serveLater(queueIndex: number): void {
    this.#waiting[queueIndex] = true;
    if (this.#isDeferred) return;
    this.#isDeferred = true;
    this.#loop.defer(this.#serveDeferred);
  }

  readonly #serveDeferred = (): void => {
    this.#isDeferred = false;
    if (this.#isQuiet) return;
    for (let queueIndex = 0; queueIndex < this.#waiting.length; queueIndex++) {
      // A reset in between has cleared all marks: nothing from before it is served.
      if (this.#waiting[queueIndex] !== true) continue;
      this.#waiting[queueIndex] = false;
      this.#serve(queueIndex);
    }
  };

  #usedBuffer(queueIndex: number): void {
    this.counters.interrupts++;
    this.#tell(queueIndex);
  }

  #configChanged(): void {
    this.configGeneration = (this.configGeneration + 1) >>> 0;
    this.configurationChanged();
    this.counters.configInterrupts++;
    this.#tell(CONFIG_SOURCE);
  }

  #tell(source: number): void {
    // First: the driver's handler looks for it as soon as it is interrupted.
    this.mark(source);
    if (this.#isQuiet) this.#owed.add(source);
    else this.interrupt([source]);
  }

  #reset(): void {
    this.counters.resets++;
    this.#letGo();
    this.#status = 0;
    this.#needsReset = false;
    this.deviceFeaturesSel = 0;
    this.driverFeaturesSel = 0;
    this.#driverFeatures = 0n;
    this.queueSel = 0;
    for (const queue of this.queues) queue.reset();
  }

  /** Ends the device's life, in whatever it is doing: its queues are dead before its reset is called. */
  #letGo(): void {
    for (const queue of this.#live) queue.stop();
    this.#live = [];
    this.#waiting.fill(false);
    this.device.reset();
  }
}

function featuresWord(features: bigint, word: number): number {
  return word > 1 ? 0 : Number((features >> BigInt(32 * word)) & 0xffff_ffffn);
}
