// virtio over PCI, modern: the structures in a function's memory through which a driver reaches a device. What finds them,
// and MSI-X itself, are the function's: pci-function.ts. virtio 1.2 §4.1.
// Left out on purpose: the transitional interface, INTx, queue reset, notification data.
import type { AccessSize, BusDevice } from "../contracts.js";
import type { Msix } from "../pci/msix.js";
import type { State, StateReader } from "../state.js";
import {
  VIRTIO_MSI_NO_VECTOR,
  VIRTIO_PCI_COMMON_CFGGENERATION,
  VIRTIO_PCI_COMMON_DF,
  VIRTIO_PCI_COMMON_DFSELECT,
  VIRTIO_PCI_COMMON_GF,
  VIRTIO_PCI_COMMON_GFSELECT,
  VIRTIO_PCI_COMMON_LENGTH,
  VIRTIO_PCI_COMMON_MSIX,
  VIRTIO_PCI_COMMON_NUMQ,
  VIRTIO_PCI_COMMON_Q_AVAILHI,
  VIRTIO_PCI_COMMON_Q_AVAILLO,
  VIRTIO_PCI_COMMON_Q_DESCHI,
  VIRTIO_PCI_COMMON_Q_DESCLO,
  VIRTIO_PCI_COMMON_Q_ENABLE,
  VIRTIO_PCI_COMMON_Q_MSIX,
  VIRTIO_PCI_COMMON_Q_NOFF,
  VIRTIO_PCI_COMMON_Q_SELECT,
  VIRTIO_PCI_COMMON_Q_SIZE,
  VIRTIO_PCI_COMMON_Q_USEDHI,
  VIRTIO_PCI_COMMON_Q_USEDLO,
  VIRTIO_PCI_COMMON_STATUS,
  VIRTIO_PCI_ISR_CONFIG,
  VIRTIO_PCI_ISR_QUEUE,
} from "./pci-constants.js";
import { CONFIG_SOURCE, VirtioTransport, type TransportOptions } from "./transport.js";
import { readPciState } from "./transport-state.js";

// Where the structures lie, each in a page of its own, so that a page can be something else one day.
export const COMMON_OFFSET = 0x0000;
export const ISR_OFFSET = 0x1000;
export const DEVICE_OFFSET = 0x2000;
/** As much configuration space as any device here has, and more. */
export const DEVICE_LENGTH = 0x1000;
export const NOTIFY_OFFSET = 0x3000;
/** `bytes` from one queue's notification address to the next one's. */
export const NOTIFY_MULTIPLIER = 4;
/** Where the structures end. */
export const STRUCTURES_LENGTH = 0x4000;

/** Width of each field of the common configuration: others are no accesses of a driver (§4.1.3.1). */
const WIDTHS: Readonly<Record<number, AccessSize>> = {
  [VIRTIO_PCI_COMMON_DFSELECT]: 4,
  [VIRTIO_PCI_COMMON_DF]: 4,
  [VIRTIO_PCI_COMMON_GFSELECT]: 4,
  [VIRTIO_PCI_COMMON_GF]: 4,
  [VIRTIO_PCI_COMMON_MSIX]: 2,
  [VIRTIO_PCI_COMMON_NUMQ]: 2,
  [VIRTIO_PCI_COMMON_STATUS]: 1,
  [VIRTIO_PCI_COMMON_CFGGENERATION]: 1,
  [VIRTIO_PCI_COMMON_Q_SELECT]: 2,
  [VIRTIO_PCI_COMMON_Q_SIZE]: 2,
  [VIRTIO_PCI_COMMON_Q_MSIX]: 2,
  [VIRTIO_PCI_COMMON_Q_ENABLE]: 2,
  [VIRTIO_PCI_COMMON_Q_NOFF]: 2,
  [VIRTIO_PCI_COMMON_Q_DESCLO]: 4,
  [VIRTIO_PCI_COMMON_Q_DESCHI]: 4,
  [VIRTIO_PCI_COMMON_Q_AVAILLO]: 4,
  [VIRTIO_PCI_COMMON_Q_AVAILHI]: 4,
  [VIRTIO_PCI_COMMON_Q_USEDLO]: 4,
  [VIRTIO_PCI_COMMON_Q_USEDHI]: 4,
};

export interface PciTransportOptions extends TransportOptions {
  readonly msix: Msix;
  /** A driver uses the device, from now on. */
  readonly used?: () => void;
  /** A queue may have another vector. */
  readonly vectorsChanged?: () => void;
}

export class PciTransport extends VirtioTransport implements BusDevice {
  readonly #msix: Msix;
  readonly #used: (() => void) | undefined;
  readonly #vectorsChanged: (() => void) | undefined;
  /** Why the driver is to look, while it has not enabled MSI-X: it reads that and clears it. */
  #isr = 0;
  #configVector = VIRTIO_MSI_NO_VECTOR;
  readonly #queueVectors: number[];

  constructor(options: PciTransportOptions) {
    super(options);
    this.#msix = options.msix;
    this.#used = options.used;
    this.#vectorsChanged = options.vectorsChanged;
    this.#queueVectors = this.queues.map(() => VIRTIO_MSI_NO_VECTOR);
  }

  /** `offset` from the first structure. */
  read(offset: number, size: AccessSize): number {
    if (offset >= NOTIFY_OFFSET) return 0;
    if (offset >= DEVICE_OFFSET) return this.device.readConfig(offset - DEVICE_OFFSET, size);
    if (offset >= ISR_OFFSET) return offset === ISR_OFFSET ? this.#takeIsr() : 0;
    return WIDTHS[offset] === size ? this.#readCommon(offset) : 0;
  }

  write(offset: number, size: AccessSize, value: number): void {
    if (offset >= NOTIFY_OFFSET) {
      // Which queue is meant the address alone tells (§4.1.5.2).
      if (offset % NOTIFY_MULTIPLIER === 0) this.notify((offset - NOTIFY_OFFSET) / NOTIFY_MULTIPLIER);
    } else if (offset >= DEVICE_OFFSET) {
      this.device.writeConfig(offset - DEVICE_OFFSET, size, value);
    } else if (offset >= VIRTIO_PCI_COMMON_LENGTH || WIDTHS[offset] !== size || !this.#writeCommon(offset, value)) {
      this.counters.refusedWrites++;
    }
  }

  /** The vector of a queue, VIRTIO_MSI_NO_VECTOR if it has none. */
  vectorOf(queueIndex: number): number {
    return this.#queueVectors[queueIndex] ?? VIRTIO_MSI_NO_VECTOR;
  }

  save(): State {
    const [isr, configVector, queueVectors] = [this.#isr, this.#configVector, this.#queueVectors];
    return { ...this.saveCommon(), isr, configVector, queueVectors: [...queueVectors] };
  }

  restore(state: StateReader, deviceState: StateReader): void {
    const vectors = this.#msix.vectors;
    const { isr, configVector, queueVectors, ...saved } = readPciState(
      state,
      this.queues.length,
      this.restorable,
      vectors,
    );
    this.#isr = isr;
    this.#configVector = configVector;
    queueVectors.forEach((vector, queueIndex) => {
      this.#queueVectors[queueIndex] = vector;
    });
    this.#vectorsChanged?.();
    this.restoreCommon(saved, deviceState);
    // A message may have been on its way when the rest of the machine was saved; one too many does no harm.
    if (saved.isLive) for (const source of [CONFIG_SOURCE, ...this.queues.keys()]) this.owe(source);
  }

  protected override mark(source: number): void {
    if (this.#msix.isEnabled) return;
    this.#isr |= source === CONFIG_SOURCE ? VIRTIO_PCI_ISR_CONFIG : VIRTIO_PCI_ISR_QUEUE;
  }

  protected override interrupt(sources: Iterable<number>): void {
    const vectors = new Set<number>();
    for (const source of sources) vectors.add(source === CONFIG_SOURCE ? this.#configVector : this.vectorOf(source));
    for (const vector of vectors) this.#msix.signal(vector);
  }

  protected override statusChanged(): void {
    // Read where it is.
  }

  protected override configurationChanged(): void {
    // Read where it is.
  }

  protected override beforeLive(): void {
    this.#used?.();
  }

  #takeIsr(): number {
    const isr = this.#isr;
    this.#isr = 0;
    return isr;
  }

  #readCommon(offset: number): number {
    const queue = this.queues[this.queueSel];
    switch (offset) {
      case VIRTIO_PCI_COMMON_DFSELECT:
        return this.deviceFeaturesSel;
      case VIRTIO_PCI_COMMON_DF:
        return this.readDeviceFeatures();
      case VIRTIO_PCI_COMMON_GFSELECT:
        return this.driverFeaturesSel;
      case VIRTIO_PCI_COMMON_GF:
        return this.readDriverFeatures();
      case VIRTIO_PCI_COMMON_MSIX:
        return this.#configVector;
      case VIRTIO_PCI_COMMON_NUMQ:
        return this.queues.length;
      case VIRTIO_PCI_COMMON_STATUS:
        return this.readStatus();
      case VIRTIO_PCI_COMMON_CFGGENERATION:
        return this.configGeneration & 0xff;
      case VIRTIO_PCI_COMMON_Q_SELECT:
        return this.queueSel;
      case VIRTIO_PCI_COMMON_Q_SIZE:
        // The largest, until the driver has chosen one (§4.1.4.3).
        return queue === undefined ? 0 : queue.size === 0 ? queue.maxSize : queue.size;
      case VIRTIO_PCI_COMMON_Q_MSIX:
        return this.vectorOf(this.queueSel);
      case VIRTIO_PCI_COMMON_Q_ENABLE:
        return queue?.isReady === true ? 1 : 0;
      case VIRTIO_PCI_COMMON_Q_NOFF:
        return queue === undefined ? 0 : this.queueSel;
      case VIRTIO_PCI_COMMON_Q_DESCLO:
        return queue?.descriptor.low ?? 0;
      case VIRTIO_PCI_COMMON_Q_DESCHI:
        return queue?.descriptor.high ?? 0;
      case VIRTIO_PCI_COMMON_Q_AVAILLO:
        return queue?.available.low ?? 0;
      case VIRTIO_PCI_COMMON_Q_AVAILHI:
        return queue?.available.high ?? 0;
      case VIRTIO_PCI_COMMON_Q_USEDLO:
        return queue?.used.low ?? 0;
      case VIRTIO_PCI_COMMON_Q_USEDHI:
        return queue?.used.high ?? 0;
      default:
        return 0;
    }
  }

  /** False if the driver may not write this, or not now. */
  #writeCommon(offset: number, value: number): boolean {
    switch (offset) {
      case VIRTIO_PCI_COMMON_DFSELECT:
        this.deviceFeaturesSel = value;
        return true;
      case VIRTIO_PCI_COMMON_GFSELECT:
        this.driverFeaturesSel = value;
        return true;
      case VIRTIO_PCI_COMMON_GF:
        return this.writeDriverFeatures(value);
      case VIRTIO_PCI_COMMON_MSIX:
        this.#configVector = this.#allowed(value);
        return true;
      case VIRTIO_PCI_COMMON_STATUS:
        if (!this.writeStatus(value)) return false;
        if (value === 0) this.#forget();
        return true;
      case VIRTIO_PCI_COMMON_Q_SELECT:
        this.queueSel = value;
        return true;
      case VIRTIO_PCI_COMMON_Q_MSIX:
        if (this.queueSel >= this.queues.length) return false;
        this.#queueVectors[this.queueSel] = this.#allowed(value);
        this.#vectorsChanged?.();
        return true;
      case VIRTIO_PCI_COMMON_Q_ENABLE:
        return value === 1 && this.#enableSelected();
      default:
        return this.#writeQueue(offset, value);
    }
  }

  #writeQueue(offset: number, value: number): boolean {
    const queue = this.queueInSetUp();
    if (queue === undefined || queue.isReady) return false;
    switch (offset) {
      case VIRTIO_PCI_COMMON_Q_SIZE:
        queue.size = value;
        return true;
      case VIRTIO_PCI_COMMON_Q_DESCLO:
        queue.descriptor.low = value;
        return true;
      case VIRTIO_PCI_COMMON_Q_DESCHI:
        queue.descriptor.high = value;
        return true;
      case VIRTIO_PCI_COMMON_Q_AVAILLO:
        queue.available.low = value;
        return true;
      case VIRTIO_PCI_COMMON_Q_AVAILHI:
        queue.available.high = value;
        return true;
      case VIRTIO_PCI_COMMON_Q_USEDLO:
        queue.used.low = value;
        return true;
      case VIRTIO_PCI_COMMON_Q_USEDHI:
        queue.used.high = value;
        return true;
      default:
        return false;
    }
  }

  #enableSelected(): boolean {
    const queue = this.queueInSetUp();
    if (queue === undefined || queue.isReady) return false;
    if (queue.size === 0) queue.size = queue.maxSize;
    return this.enableQueue();
  }

  /** What the device cannot have reads as no vector (§4.1.4.3.1). */
  #allowed(vector: number): number {
    return vector < this.#msix.vectors ? vector : VIRTIO_MSI_NO_VECTOR;
  }

  #forget(): void {
    this.#isr = 0;
    this.#configVector = VIRTIO_MSI_NO_VECTOR;
    this.#queueVectors.fill(VIRTIO_MSI_NO_VECTOR);
    this.#vectorsChanged?.();
  }
}
