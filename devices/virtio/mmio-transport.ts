// virtio-mmio, version 2: the register file that a driver finds a device through. virtio 1.2 §4.2.
// Left out on purpose: legacy (version 1) registers, queue reset, shared memory regions.
import type { AccessSize, BusDevice, InterruptLine } from "../contracts.js";
import type { State, StateReader } from "../state.js";
import {
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
} from "./constants.js";
import type { QueueRegisters } from "./queue-registers.js";
import { CONFIG_SOURCE, VirtioTransport, type TransportOptions } from "./transport.js";
import { readMmioState } from "./transport-state.js";

/** "vmlt", little-endian: the subsystem vendor; drivers do not care. */
const VENDOR_ID = 0x746c6d76;
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

/** What the machine gives to one virtio-mmio window. */
export interface MmioTransportOptions extends TransportOptions {
  readonly interrupt: InterruptLine;
  /**
   * VIRTIO_MMIO_REGISTER_WORDS words that are the registers as the driver reads them, which it may do
   * without asking anybody.
   */
  readonly registers: Int32Array;
}

export class MmioTransport extends VirtioTransport implements BusDevice {
  readonly #interrupt: InterruptLine;
  readonly #registers: Int32Array;

  constructor(options: MmioTransportOptions) {
    super(options);
    this.#interrupt = options.interrupt;
    this.#registers = options.registers;
    this.#show(VIRTIO_MMIO_MAGIC_VALUE, VIRTIO_MMIO_MAGIC);
    this.#show(VIRTIO_MMIO_VERSION, VIRTIO_MMIO_VERSION_MODERN);
    this.#show(VIRTIO_MMIO_DEVICE_ID, this.device.deviceType);
    this.#show(VIRTIO_MMIO_VENDOR_ID, VENDOR_ID);
    // "A region that does not exist has a length of -1" (§4.2.2.1).
    for (const register of NO_SHARED_MEMORY) this.#show(register, 0xffff_ffff);
    this.#showRegisters();
    this.#showConfig();
  }

  read(offset: number, size: AccessSize): number {
    if (offset >= VIRTIO_MMIO_CONFIG) return this.device.readConfig(offset - VIRTIO_MMIO_CONFIG, size);
    // Registers are 32 bits wide and aligned (§4.2.2.2).
    if (size !== 4 || offset % 4 !== 0) return 0;
    return Atomics.load(this.#registers, offset >>> 2) >>> 0;
  }

  write(offset: number, size: AccessSize, value: number): void {
    if (offset >= VIRTIO_MMIO_CONFIG) {
      this.device.writeConfig(offset - VIRTIO_MMIO_CONFIG, size, value);
      this.#showConfig();
    } else if (size !== 4 || !this.#writeRegister(offset, value)) {
      this.counters.refusedWrites++;
    } else if (offset !== VIRTIO_MMIO_QUEUE_NOTIFY && offset !== VIRTIO_MMIO_INTERRUPT_ACK) {
      this.#showRegisters();
    }
  }

  save(): State {
    const interruptStatus = Atomics.load(this.#registers, INTERRUPT_STATUS_WORD) >>> 0;
    return { ...this.saveCommon(), interruptStatus };
  }

  restore(state: StateReader, deviceState: StateReader): void {
    const { interruptStatus, ...saved } = readMmioState(state, this.queues.length, this.restorable);
    this.restoreCommon(saved, deviceState);
    Atomics.or(this.#registers, INTERRUPT_STATUS_WORD, interruptStatus);
    // What the line has signalled may have been on its way when the rest of the machine was saved.
    if ((interruptStatus & ~this.#lastingInterrupt) !== 0) this.owe(CONFIG_SOURCE);
    this.#showRegisters();
    this.#showConfig();
  }

  protected override mark(source: number): void {
    const bit = source === CONFIG_SOURCE ? VIRTIO_MMIO_INT_CONFIG : VIRTIO_MMIO_INT_VRING;
    Atomics.or(this.#registers, INTERRUPT_STATUS_WORD, bit);
  }

  /** One line for all of them. */
  protected override interrupt(): void {
    this.#interrupt.trigger();
  }

  protected override statusChanged(): void {
    this.#showRegisters();
  }

  protected override configurationChanged(): void {
    this.#showConfig();
    this.#showRegisters();
  }

  protected override beforeLive(): void {
    Atomics.or(this.#registers, INTERRUPT_STATUS_WORD, this.#lastingInterrupt);
  }

  #show(register: number, value: number): void {
    this.#registers[register >>> 2] = value;
  }

  /** Updates the registers that a write of the driver, or a failure, may have changed. */
  #showRegisters(): void {
    const queue = this.queues[this.queueSel];
    this.#show(VIRTIO_MMIO_DEVICE_FEATURES, this.readDeviceFeatures());
    this.#show(VIRTIO_MMIO_QUEUE_NUM_MAX, queue?.maxSize ?? 0);
    this.#show(VIRTIO_MMIO_QUEUE_READY, queue?.isReady === true ? 1 : 0);
    this.#show(VIRTIO_MMIO_STATUS, this.readStatus());
    this.#show(VIRTIO_MMIO_CONFIG_GENERATION, this.configGeneration);
  }

  #showConfig(): void {
    for (let offset = VIRTIO_MMIO_CONFIG; offset < VIRTIO_MMIO_REGISTER_BYTES; offset += 4) {
      this.#show(offset, this.device.readConfig(offset - VIRTIO_MMIO_CONFIG, 4));
    }
  }

  /** False if the driver may not write this, or not now. */
  #writeRegister(offset: number, value: number): boolean {
    switch (offset) {
      case VIRTIO_MMIO_DEVICE_FEATURES_SEL:
        this.deviceFeaturesSel = value;
        return true;
      case VIRTIO_MMIO_DRIVER_FEATURES_SEL:
        this.driverFeaturesSel = value;
        return true;
      case VIRTIO_MMIO_DRIVER_FEATURES:
        return this.writeDriverFeatures(value);
      case VIRTIO_MMIO_QUEUE_SEL:
        this.queueSel = value;
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
        if (!this.writeStatus(value)) return false;
        if (value === 0) Atomics.store(this.#registers, INTERRUPT_STATUS_WORD, 0);
        // A driver takes these steps before it reads the configuration, which may have changed until then.
        this.#showConfig();
        return true;
      default:
        return this.#writeQueueRegister(offset, value);
    }
  }

  #writeQueueRegister(offset: number, value: number): boolean {
    const queue: QueueRegisters | undefined = this.queueInSetUp();
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
      this.stopQueue();
      return true;
    }
    return value === 1 && this.enableQueue();
  }

  /** The bit of InterruptStatus that no acknowledgement clears, 0 for none. */
  get #lastingInterrupt(): number {
    return this.device.isServedElsewhere === true && this.isLive ? VIRTIO_MMIO_INT_VRING : 0;
  }
}
