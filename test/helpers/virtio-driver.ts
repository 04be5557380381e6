// Plays the guest's driver of one virtio-mmio device: finds it, negotiates, sets queues up,
// notifies and takes interrupts, through registers and guest memory only. virtio 1.2 §3.1, §4.2.3.
import type { BusDevice, GuestMemory } from "../../devices/contracts.js";
import {
  VIRTIO_CONFIG_S_ACKNOWLEDGE,
  VIRTIO_CONFIG_S_DRIVER,
  VIRTIO_CONFIG_S_DRIVER_OK,
  VIRTIO_CONFIG_S_FEATURES_OK,
  VIRTIO_F_VERSION_1,
  VIRTIO_MMIO_CONFIG,
  VIRTIO_MMIO_DEVICE_FEATURES,
  VIRTIO_MMIO_DEVICE_FEATURES_SEL,
  VIRTIO_MMIO_DRIVER_FEATURES,
  VIRTIO_MMIO_DRIVER_FEATURES_SEL,
  VIRTIO_MMIO_INTERRUPT_ACK,
  VIRTIO_MMIO_INTERRUPT_STATUS,
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
  VIRTIO_MMIO_STATUS,
  VIRTIO_MMIO_VERSION,
  VIRTIO_MMIO_VERSION_MODERN,
  VIRTIO_RING_F_EVENT_IDX,
} from "../../devices/virtio/constants.js";
import { featureSet, hasFeature } from "../../devices/virtio/features.js";
import type { QueueAddresses } from "../../devices/virtio/queue.js";
import { DriverQueue } from "./driver-queue.js";

export interface StartOptions {
  /** Feature bits to accept besides VERSION_1; those not offered are left out. */
  readonly features?: readonly number[];
  /** Descriptors of every queue, unless the device allows fewer. */
  readonly queueSize?: number;
}

export class VirtioDriver {
  readonly #device: BusDevice;
  readonly #memory: GuestMemory;
  readonly #heapStart: number;
  #heap: number;
  #eventIndex = false;

  /** `heapGpa`: free RAM from there on, which `allocate` gives out. */
  constructor(device: BusDevice, memory: GuestMemory, heapGpa = 0x1000) {
    this.#device = device;
    this.#memory = memory;
    this.#heapStart = heapGpa;
    this.#heap = heapGpa;
  }

  /** `length` bytes of guest RAM for rings, tables and buffers; a reset takes all back. */
  allocate(length: number, alignment = 16): number {
    const gpa = Math.ceil(this.#heap / alignment) * alignment;
    this.#heap = gpa + length;
    return gpa;
  }

  read(register: number): number {
    return this.#device.read(register, 4);
  }

  write(register: number, value: number): void {
    this.#device.write(register, 4, value);
  }

  get status(): number {
    return this.read(VIRTIO_MMIO_STATUS);
  }

  /** Sets one more status bit, as a driver does: by reading and writing back. */
  addStatus(bit: number): void {
    this.write(VIRTIO_MMIO_STATUS, this.status | bit);
  }

  reset(): void {
    this.write(VIRTIO_MMIO_STATUS, 0);
    this.#heap = this.#heapStart;
  }

  offeredFeatures(): bigint {
    this.write(VIRTIO_MMIO_DEVICE_FEATURES_SEL, 1);
    const high = this.read(VIRTIO_MMIO_DEVICE_FEATURES);
    this.write(VIRTIO_MMIO_DEVICE_FEATURES_SEL, 0);
    return (BigInt(high) << 32n) | BigInt(this.read(VIRTIO_MMIO_DEVICE_FEATURES));
  }

  writeFeatures(features: bigint): void {
    this.write(VIRTIO_MMIO_DRIVER_FEATURES_SEL, 0);
    this.write(VIRTIO_MMIO_DRIVER_FEATURES, Number(features & 0xffff_ffffn));
    this.write(VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
    this.write(VIRTIO_MMIO_DRIVER_FEATURES, Number(features >> 32n));
    this.#eventIndex = hasFeature(features, VIRTIO_RING_F_EVENT_IDX);
  }

  /** Reset, acknowledge, features; true if the device has agreed. */
  negotiate(bits: readonly number[] = []): boolean {
    this.reset();
    this.addStatus(VIRTIO_CONFIG_S_ACKNOWLEDGE);
    this.addStatus(VIRTIO_CONFIG_S_DRIVER);
    this.writeFeatures(this.offeredFeatures() & featureSet(VIRTIO_F_VERSION_1, ...bits));
    this.addStatus(VIRTIO_CONFIG_S_FEATURES_OK);
    return (this.status & VIRTIO_CONFIG_S_FEATURES_OK) !== 0;
  }

  /** Tells the device where a queue is, and that it is ready; true if the device agrees. */
  announceQueue(index: number, { size, descriptorGpa, availableGpa, usedGpa }: QueueAddresses): boolean {
    this.write(VIRTIO_MMIO_QUEUE_SEL, index);
    this.write(VIRTIO_MMIO_QUEUE_NUM, size);
    this.#writeHalves(VIRTIO_MMIO_QUEUE_DESC_LOW, VIRTIO_MMIO_QUEUE_DESC_HIGH, descriptorGpa);
    this.#writeHalves(VIRTIO_MMIO_QUEUE_AVAIL_LOW, VIRTIO_MMIO_QUEUE_AVAIL_HIGH, availableGpa);
    this.#writeHalves(VIRTIO_MMIO_QUEUE_USED_LOW, VIRTIO_MMIO_QUEUE_USED_HIGH, usedGpa);
    this.write(VIRTIO_MMIO_QUEUE_READY, 1);
    return this.read(VIRTIO_MMIO_QUEUE_READY) === 1;
  }

  /** Makes a queue in guest RAM and announces it. */
  setUpQueue(index: number, size: number): DriverQueue {
    const gpa = this.allocate(DriverQueue.bytesFor(size));
    const queue = new DriverQueue(this.#memory, gpa, size, this.#eventIndex);
    if (!this.announceQueue(index, queue)) throw new Error(`The device refuses queue ${String(index)}`);
    return queue;
  }

  /** The whole initialization; returns the queues of a live device. */
  start(options: StartOptions = {}): DriverQueue[] {
    if (this.read(VIRTIO_MMIO_MAGIC_VALUE) !== VIRTIO_MMIO_MAGIC) throw new Error("No virtio device here");
    if (this.read(VIRTIO_MMIO_VERSION) !== VIRTIO_MMIO_VERSION_MODERN) throw new Error("Not a version 2 device");
    if (!this.negotiate(options.features)) throw new Error("The device refuses its own features");
    const queues: DriverQueue[] = [];
    for (;;) {
      this.write(VIRTIO_MMIO_QUEUE_SEL, queues.length);
      const maxSize = this.read(VIRTIO_MMIO_QUEUE_NUM_MAX);
      if (maxSize === 0) break;
      queues.push(this.setUpQueue(queues.length, Math.min(maxSize, options.queueSize ?? maxSize)));
    }
    this.addStatus(VIRTIO_CONFIG_S_DRIVER_OK);
    return queues;
  }

  /** Takes a queue back from a live device. */
  stopQueue(index: number): void {
    this.write(VIRTIO_MMIO_QUEUE_SEL, index);
    this.write(VIRTIO_MMIO_QUEUE_READY, 0);
  }

  notify(queueIndex: number): void {
    this.write(VIRTIO_MMIO_QUEUE_NOTIFY, queueIndex);
  }

  /** What an interrupt handler does: reads the status and acknowledges what it has read. */
  takeInterrupt(): number {
    const status = this.read(VIRTIO_MMIO_INTERRUPT_STATUS);
    this.write(VIRTIO_MMIO_INTERRUPT_ACK, status);
    return status;
  }

  readConfigU32(offset: number): number {
    return this.read(VIRTIO_MMIO_CONFIG + offset);
  }

  #writeHalves(low: number, high: number, gpa: number): void {
    this.write(low, gpa % 2 ** 32);
    this.write(high, Math.floor(gpa / 2 ** 32));
  }
}
