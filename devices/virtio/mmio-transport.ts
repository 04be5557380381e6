// virtio-mmio, version 2: the register file that a driver finds a device through, and the one
// place where a device meets the machine. virtio 1.2 §4.2, §2.1, §2.2, §3.1.
// Left out on purpose: legacy (version 1) registers, queue reset, shared memory regions.
import type { AccessSize, BusDevice, GuestMemory, InterruptLine } from "../contracts.js";
import { hex64, type State, type StateReader } from "../state.js";
import {
  VIRTIO_CONFIG_S_FAILED,
  VIRTIO_CONFIG_S_NEEDS_RESET,
  VIRTIO_F_VERSION_1,
  VIRTIO_MMIO_CONFIG,
  VIRTIO_MMIO_CONFIG_GENERATION,
  VIRTIO_MMIO_DEVICE_FEATURES,
  VIRTIO_MMIO_DEVICE_FEATURES_SEL,
  VIRTIO_MMIO_DEVICE_ID,
  VIRTIO_MMIO_DRIVER_FEATURES,
  VIRTIO_MMIO_DRIVER_FEATURES_SEL,
  VIRTIO_MMIO_INTERRUPT_ACK,
  VIRTIO_MMIO_INTERRUPT_STATUS,
  VIRTIO_MMIO_INT_CONFIG,
  VIRTIO_MMIO_INT_VRING,
  VIRTIO_MMIO_MAGIC,
  VIRTIO_MMIO_MAGIC_VALUE,
  VIRTIO_MMIO_QUEUE_AVAIL_HIGH,
  VIRTIO_MMIO_QUEUE_AVAIL_LOW,
  VIRTIO_MMIO_QUEUE_DESC_HIGH,
  VIRTIO_MMIO_QUEUE_DESC_LOW,
  VIRTIO_MMIO_QUEUE_NOTIFY,
  VIRTIO_MMIO_QUEUE_NUM,
  VIRTIO_MMIO_QUEUE_NUM_MAX,
  VIRTIO_MMIO_QUEUE_READY,
  VIRTIO_MMIO_QUEUE_SEL,
  VIRTIO_MMIO_QUEUE_USED_HIGH,
  VIRTIO_MMIO_QUEUE_USED_LOW,
  VIRTIO_MMIO_SHM_BASE_HIGH,
  VIRTIO_MMIO_SHM_BASE_LOW,
  VIRTIO_MMIO_SHM_LEN_HIGH,
  VIRTIO_MMIO_SHM_LEN_LOW,
  VIRTIO_MMIO_STATUS,
  VIRTIO_MMIO_VENDOR_ID,
  VIRTIO_MMIO_VERSION,
  VIRTIO_MMIO_VERSION_MODERN,
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
import { readTransportState } from "./transport-state.js";

/** "vmlt", little-endian: the subsystem vendor; drivers do not care. */
const VENDOR_ID = 0x746c6d76;
const TRANSPORT_FEATURES = featureSet(VIRTIO_F_VERSION_1, VIRTIO_RING_F_INDIRECT_DESC, VIRTIO_RING_F_EVENT_IDX);
const INTERRUPT_STATUS_WORD = VIRTIO_MMIO_INTERRUPT_STATUS >>> 2;
const NO_SHARED_MEMORY = [
  VIRTIO_MMIO_SHM_LEN_LOW,
  VIRTIO_MMIO_SHM_LEN_HIGH,
  VIRTIO_MMIO_SHM_BASE_LOW,
  VIRTIO_MMIO_SHM_BASE_HIGH,
];
/** Registers and as much configuration space as any device here has. */
const VIRTIO_MMIO_REGISTER_BYTES = 0x200;
export const VIRTIO_MMIO_REGISTER_WORDS = VIRTIO_MMIO_REGISTER_BYTES / 4;
const NO_QUEUE: QueueAddresses = { size: 0, descriptorGpa: 0, availableGpa: 0, usedGpa: 0 };

/** What the machine gives to one virtio-mmio window. */
export interface MmioTransportOptions {
  readonly device: VirtioDevice;
  readonly memory: GuestMemory;
  readonly interrupt: InterruptLine;
  /**
   * VIRTIO_MMIO_REGISTER_WORDS words that are the registers as the driver reads them, which it may do
   * without asking anybody.
   */
  readonly registers: Int32Array;
  readonly loop: EventLoop;
  /** Takes a line for the log. */
  readonly report: (line: string) => void;
}

export class MmioTransport implements BusDevice {
  readonly name: string;
  readonly counters = {
    notifications: 0,
    interrupts: 0,
    configInterrupts: 0,
    refusedWrites: 0,
    failures: 0,
    resets: 0,
  };
  readonly #device: VirtioDevice;
  readonly #memory: GuestMemory;
  readonly #interrupt: InterruptLine;
  readonly #registers: Int32Array;
  readonly #loop: EventLoop;
  readonly #report: LimitedReport;
  readonly #offered: bigint;
  readonly #queues: readonly QueueRegisters[];
  /** Which queues a later turn will serve. */
  readonly #waiting: boolean[];

  /** The driver's status bits; DEVICE_NEEDS_RESET is ours and kept apart. */
  #status = 0;
  #needsReset = false;
  #deviceFeaturesSel = 0;
  #driverFeaturesSel = 0;
  #driverFeatures = 0n;
  #queueSel = 0;
  #configGeneration = 0;
  /** The queues of a live device, none otherwise. */
  #live: readonly Queue[] = [];
  /** The loop has been asked for that turn. */
  #isDeferred = false;
  /** Nothing is served, and nobody interrupted, for the time being. */
  #isQuiet = false;
  #owesInterrupt = false;

  constructor(options: MmioTransportOptions) {
    this.#device = options.device;
    this.#memory = options.memory;
    this.#interrupt = options.interrupt;
    this.#registers = options.registers;
    this.#loop = options.loop;
    this.#report = new LimitedReport(options.loop, options.report);
    this.name = options.device.name;
    this.#offered = options.device.offeredFeatures | TRANSPORT_FEATURES;
    this.#queues = options.device.queueMaxSizes.map((maxSize) => new QueueRegisters(maxSize));
    this.#waiting = this.#queues.map(() => false);
    this.#show(VIRTIO_MMIO_MAGIC_VALUE, VIRTIO_MMIO_MAGIC);
    this.#show(VIRTIO_MMIO_VERSION, VIRTIO_MMIO_VERSION_MODERN);
    this.#show(VIRTIO_MMIO_DEVICE_ID, this.#device.deviceType);
    this.#show(VIRTIO_MMIO_VENDOR_ID, VENDOR_ID);
    // "A region that does not exist has a length of -1" (§4.2.2.1).
    for (const register of NO_SHARED_MEMORY) this.#show(register, 0xffff_ffff);
    this.#showRegisters();
    this.#showConfig();
  }

  /** The device, for statistics. */
  get device(): VirtioDevice {
    return this.#device;
  }

  read(offset: number, size: AccessSize): number {
    if (offset >= VIRTIO_MMIO_CONFIG) return this.#device.readConfig(offset - VIRTIO_MMIO_CONFIG, size);
    // Registers are 32 bits wide and aligned (§4.2.2.2).
    if (size !== 4 || offset % 4 !== 0) return 0;
    return Atomics.load(this.#registers, offset >>> 2) >>> 0;
  }

  write(offset: number, size: AccessSize, value: number): void {
    if (offset >= VIRTIO_MMIO_CONFIG) {
      this.#device.writeConfig(offset - VIRTIO_MMIO_CONFIG, size, value);
      this.#showConfig();
    } else if (size !== 4 || !this.#writeRegister(offset, value)) {
      this.counters.refusedWrites++;
    } else if (offset !== VIRTIO_MMIO_QUEUE_NOTIFY && offset !== VIRTIO_MMIO_INTERRUPT_ACK) {
      this.#showRegisters();
    }
  }

  /** Available buffer notification: QueueNotify, or the ioeventfd that stands for it. */
  notify(queueIndex: number): void {
    if (queueIndex >= this.#live.length) return;
    this.counters.notifications++;
    // A queue that waits for its turn is served then: notifying again does not make it come earlier.
    if (this.#waiting[queueIndex] !== true) this.#serve(queueIndex);
  }

  /** Serves nothing and interrupts nobody until `unquiesce`; done when the device has nothing in flight. */
  async quiesce(): Promise<void> {
    this.#isQuiet = true;
    await this.#device.quiesce?.();
  }

  /** Goes on, with a look at every queue: whoever has notified in between is heard. */
  unquiesce(): void {
    this.#isQuiet = false;
    this.#device.unquiesce?.();
    if (this.#owesInterrupt) this.#interrupt.trigger();
    this.#owesInterrupt = false;
    for (let queueIndex = 0; queueIndex < this.#live.length; queueIndex++) {
      this.#waiting[queueIndex] = false;
      this.#serve(queueIndex);
    }
  }

  /** Registers and queues; the device's own state is apart. Only while quiet. */
  save(): State {
    return {
      status: this.#status,
      needsReset: this.#needsReset,
      deviceFeaturesSel: this.#deviceFeaturesSel,
      driverFeaturesSel: this.#driverFeaturesSel,
      driverFeatures: hex64(this.#driverFeatures),
      queueSel: this.#queueSel,
      interruptStatus: Atomics.load(this.#registers, INTERRUPT_STATUS_WORD) >>> 0,
      configGeneration: this.#configGeneration,
      queues: this.#queues.map((queue) => queue.save()),
      rings: this.#live.map((queue, index) => ({ ...queue.indices(this.#device.heldChains?.(index) ?? 0) })),
    };
  }

  /**
   * Takes up both saved states; once, before a driver has come. Stays quiet until `unquiesce`. Throws StateError for
   * what no driver could have brought about.
   */
  restore(state: StateReader, deviceState: StateReader): void {
    this.#isQuiet = true;
    const saved = readTransportState(state, this.#queues.length, this.#offered);
    saved.queues.forEach((queue, index) => {
      this.#queues[index]?.restore(queue, this.#memory);
    });
    this.#device.restore(deviceState);

    this.#status = saved.status;
    this.#needsReset = saved.needsReset;
    this.#deviceFeaturesSel = saved.deviceFeaturesSel;
    this.#driverFeaturesSel = saved.driverFeaturesSel;
    this.#driverFeatures = saved.driverFeatures;
    this.#queueSel = saved.queueSel;
    this.#configGeneration = saved.configGeneration;
    Atomics.store(this.#registers, INTERRUPT_STATUS_WORD, saved.interruptStatus);
    if (saved.isLive) this.#activate(saved.rings);
    // What the line has signalled may have been on its way when the rest of the machine was saved.
    if ((saved.interruptStatus & ~this.#lastingInterrupt) !== 0) this.#owesInterrupt = true;
    this.#showRegisters();
    this.#showConfig();
  }

  #show(register: number, value: number): void {
    this.#registers[register >>> 2] = value;
  }

  /** Updates the registers that a write of the driver, or a failure, may have changed. */
  #showRegisters(): void {
    const queue = this.#queues[this.#queueSel];
    const word = this.#deviceFeaturesSel;
    this.#show(VIRTIO_MMIO_DEVICE_FEATURES, word > 1 ? 0 : Number((this.#offered >> BigInt(32 * word)) & 0xffff_ffffn));
    this.#show(VIRTIO_MMIO_QUEUE_NUM_MAX, queue?.maxSize ?? 0);
    this.#show(VIRTIO_MMIO_QUEUE_READY, queue?.isReady === true ? 1 : 0);
    this.#show(VIRTIO_MMIO_STATUS, this.#status | (this.#needsReset ? VIRTIO_CONFIG_S_NEEDS_RESET : 0));
    this.#show(VIRTIO_MMIO_CONFIG_GENERATION, this.#configGeneration);
  }

  #showConfig(): void {
    for (let offset = VIRTIO_MMIO_CONFIG; offset < VIRTIO_MMIO_REGISTER_BYTES; offset += 4) {
      this.#show(offset, this.#device.readConfig(offset - VIRTIO_MMIO_CONFIG, 4));
    }
  }

  /** False if the driver may not write this, or not now. */
  #writeRegister(offset: number, value: number): boolean {
    switch (offset) {
      case VIRTIO_MMIO_DEVICE_FEATURES_SEL:
        this.#deviceFeaturesSel = value;
        return true;
      case VIRTIO_MMIO_DRIVER_FEATURES_SEL:
        this.#driverFeaturesSel = value;
        return true;
      case VIRTIO_MMIO_DRIVER_FEATURES:
        return this.#writeDriverFeatures(value);
      case VIRTIO_MMIO_QUEUE_SEL:
        this.#queueSel = value;
        return true;
      case VIRTIO_MMIO_QUEUE_READY:
        return this.#writeQueueReady(value);
      case VIRTIO_MMIO_QUEUE_NOTIFY:
        this.notify(value);
        return true;
      case VIRTIO_MMIO_INTERRUPT_ACK:
        Atomics.and(this.#registers, INTERRUPT_STATUS_WORD, ~value | this.#lastingInterrupt);
        return true;
      case VIRTIO_MMIO_STATUS:
        if (!this.#writeStatus(value)) return false;
        // A driver takes these steps before it reads the configuration, which may have changed until then.
        this.#showConfig();
        return true;
      default:
        return this.#writeQueueRegister(offset, value);
    }
  }

  /** A queue is set up between FEATURES_OK and DRIVER_OK, and while it is not ready (§4.2.3.2). */
  #queueInSetUp(): QueueRegisters | undefined {
    return this.#status === STATUS_FEATURES_OK ? this.#queues[this.#queueSel] : undefined;
  }

  #writeQueueRegister(offset: number, value: number): boolean {
    const queue = this.#queueInSetUp();
    if (queue === undefined || queue.isReady) return false;
    switch (offset) {
      case VIRTIO_MMIO_QUEUE_NUM:
        queue.size = value;
        return true;
      case VIRTIO_MMIO_QUEUE_DESC_LOW:
        queue.descriptor.low = value;
        return true;
      case VIRTIO_MMIO_QUEUE_DESC_HIGH:
        queue.descriptor.high = value;
        return true;
      case VIRTIO_MMIO_QUEUE_AVAIL_LOW:
        queue.available.low = value;
        return true;
      case VIRTIO_MMIO_QUEUE_AVAIL_HIGH:
        queue.available.high = value;
        return true;
      case VIRTIO_MMIO_QUEUE_USED_LOW:
        queue.used.low = value;
        return true;
      case VIRTIO_MMIO_QUEUE_USED_HIGH:
        queue.used.high = value;
        return true;
      default:
        return false;
    }
  }

  #writeQueueReady(value: number): boolean {
    if (value === 0) {
      // Always allowed: drivers do it while they let go of a device, before or after its reset.
      const queue = this.#queues[this.#queueSel];
      if (queue !== undefined) queue.isReady = false;
      const live = this.#live[this.#queueSel];
      if (live !== undefined && !live.isStopped) {
        live.stop();
        this.#device.queueStopped?.(this.#queueSel);
      }
      return true;
    }
    const queue = this.#queueInSetUp();
    if (queue === undefined || value !== 1) return false;
    const problem = queue.problem(this.#memory);
    if (problem === undefined) queue.isReady = true;
    else this.#fail(problem);
    return true;
  }

  #writeDriverFeatures(value: number): boolean {
    if (this.#status !== STATUS_DRIVER || this.#driverFeaturesSel > 1) return false;
    const shift = BigInt(32 * this.#driverFeaturesSel);
    this.#driverFeatures = (this.#driverFeatures & ~(0xffff_ffffn << shift)) | (BigInt(value) << shift);
    return true;
  }

  #writeStatus(value: number): boolean {
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

  #acceptsFeatures(): boolean {
    const isSubset = (this.#driverFeatures & ~this.#offered) === 0n;
    return isSubset && hasFeature(this.#driverFeatures, VIRTIO_F_VERSION_1);
  }

  /** `indices`: where queues go on that are not new. */
  #activate(indices: readonly QueueIndices[] = []): void {
    const features = this.#driverFeatures;
    const queueFeatures = {
      eventIndex: hasFeature(features, VIRTIO_RING_F_EVENT_IDX),
      indirect: hasFeature(features, VIRTIO_RING_F_INDIRECT_DESC),
    };
    const queues = this.#queues.map((registers, index) => {
      // The registers of a queue that is not ready have not been checked.
      const addresses = registers.isReady ? registers.addresses() : NO_QUEUE;
      const queue = new Queue(this.#memory, addresses, queueFeatures, indices[index]);
      if (!registers.isReady) queue.stop();
      return queue;
    });
    this.#live = queues;
    // A context from before a reset must not act on the device after it, so each call checks.
    const isCurrent = (): boolean => this.#live === queues;
    const context: ActivationContext = {
      memory: this.#memory,
      features,
      queues,
      interrupt: () => {
        if (isCurrent()) this.#usedBuffer();
      },
      configChanged: () => {
        if (isCurrent()) this.#configChanged();
      },
      serve: (queueIndex) => {
        if (isCurrent() && this.#waiting[queueIndex] !== true) this.#serve(queueIndex);
      },
      fail: (reason) => {
        if (isCurrent()) this.#fail(reason);
      },
    };
    Atomics.or(this.#registers, INTERRUPT_STATUS_WORD, this.#lastingInterrupt);
    this.#device.activate(context);
  }

  /** The bit of InterruptStatus that no acknowledgement clears, 0 for none. */
  get #lastingInterrupt(): number {
    return this.#device.isServedElsewhere === true && this.#live.length > 0 ? VIRTIO_MMIO_INT_VRING : 0;
  }

  #serve(queueIndex: number): void {
    if (this.#isQuiet) {
      this.#waiting[queueIndex] = true;
      return;
    }
    try {
      if (this.#device.onAvailable(queueIndex)) this.#serveLater(queueIndex);
    } catch (error) {
      // A driver's mistake is a QueueError; anything else is a bug and must show.
      if (!(error instanceof QueueError)) throw error;
      this.#fail(error.message);
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

  #usedBuffer(): void {
    this.counters.interrupts++;
    this.#trigger(VIRTIO_MMIO_INT_VRING);
  }

  #configChanged(): void {
    this.#configGeneration = (this.#configGeneration + 1) >>> 0;
    this.#showConfig();
    this.#showRegisters();
    this.counters.configInterrupts++;
    this.#trigger(VIRTIO_MMIO_INT_CONFIG);
  }

  #trigger(bit: number): void {
    // The bit first: the driver's handler looks for it as soon as the line has fired.
    Atomics.or(this.#registers, INTERRUPT_STATUS_WORD, bit);
    if (this.#isQuiet) this.#owesInterrupt = true;
    else this.#interrupt.trigger();
  }

  /** DEVICE_NEEDS_RESET: the device is left alone until the driver resets it (§2.1.2). */
  #fail(reason: string): void {
    this.counters.failures++;
    this.#needsReset = true;
    const isLive = this.#status === STATUS_DRIVER_OK;
    this.#letGo();
    this.#showRegisters();
    if (isLive) this.#configChanged();
    this.#report.line(`${this.name}: ${reason}; the device needs a reset`);
  }

  #reset(): void {
    this.counters.resets++;
    this.#letGo();
    this.#status = 0;
    this.#needsReset = false;
    this.#deviceFeaturesSel = 0;
    this.#driverFeaturesSel = 0;
    this.#driverFeatures = 0n;
    this.#queueSel = 0;
    for (const queue of this.#queues) queue.reset();
    Atomics.store(this.#registers, INTERRUPT_STATUS_WORD, 0);
  }

  /** Ends the device's life, in whatever it is doing: its queues are dead before its reset is called. */
  #letGo(): void {
    for (const queue of this.#live) queue.stop();
    this.#live = [];
    this.#waiting.fill(false);
    this.#device.reset();
  }
}
