// An assigned device through its descriptor: configuration space, registers, interrupts, reset. linux/vfio.h.
import { closeSync, readSync, writeSync } from "node:fs";
import type { AccessSize } from "../../../devices/contracts.js";
import type { HostFunction } from "../../../devices/pci/assigned-function.js";
import { PCI_CFG_SPACE_SIZE, PCI_STD_NUM_BARS } from "../../../devices/pci/constants.js";
import { HostError, SystemCallError } from "../../errors.js";
import { EINVAL } from "../../sys/errno.js";
import { ioctl, ioctlStruct } from "../../sys/ioctl-calls.js";
import { mmapFile, munmap } from "../../sys/memory.js";
import {
  SIZEOF_VFIO_IRQ_INFO,
  SIZEOF_VFIO_IRQ_SET,
  SIZEOF_VFIO_REGION_INFO,
  vfio_device_info,
  vfio_irq_info,
  vfio_irq_set,
  vfio_region_info,
  VFIO_DEVICE_FLAGS_PCI,
  VFIO_DEVICE_FLAGS_RESET,
  VFIO_DEVICE_GET_INFO,
  VFIO_DEVICE_GET_IRQ_INFO,
  VFIO_DEVICE_GET_REGION_INFO,
  VFIO_DEVICE_RESET,
  VFIO_DEVICE_SET_IRQS,
  VFIO_IRQ_INFO_EVENTFD,
  VFIO_IRQ_SET_ACTION_TRIGGER,
  VFIO_IRQ_SET_ACTION_UNMASK,
  VFIO_IRQ_SET_DATA_EVENTFD,
  VFIO_IRQ_SET_DATA_NONE,
  VFIO_PCI_CONFIG_REGION_INDEX,
  VFIO_PCI_INTX_IRQ_INDEX,
  VFIO_PCI_MSI_IRQ_INDEX,
  VFIO_PCI_MSIX_IRQ_INDEX,
} from "../../sys/vfio-abi.js";
import type { InterruptSource } from "./interrupts.js";
import type { LineSource } from "./intx.js";
import { readRegionInfo, type RegionInfo, type Span } from "./regions.js";
import { structure } from "./structure.js";
import type { VectorSource } from "./vectors.js";

/** Of struct vfio_device_info, what every kernel knows: newer ones have more behind it. */
const DEVICE_INFO_BYTES = 16;
/** No eventfd for a vector. */
const NO_EVENTFD = -1;
/** Larger than any description of a region. */
const MAX_REGION_INFO = 0x1000;

/** A part of a region as memory of this process. */
export interface MappedSpan extends Span {
  readonly hva: number;
}

export class VfioDevice implements HostFunction, InterruptSource {
  readonly address: string;
  /** Of base address registers, by number. */
  readonly bars: readonly RegionInfo[];
  readonly #fd: number;
  readonly #config: RegionInfo;
  readonly #irqKinds: number;
  readonly #canReset: boolean;
  readonly msix = this.#vectors(VFIO_PCI_MSIX_IRQ_INDEX);
  readonly msi = this.#vectors(VFIO_PCI_MSI_IRQ_INDEX);
  readonly line = this.#line();
  readonly #mapped: MappedSpan[] = [];
  readonly #bytes = Buffer.alloc(4);

  /** Owns `fd`, and has closed it if it throws. */
  static of(address: string, fd: number): VfioDevice {
    try {
      return new VfioDevice(address, fd);
    } catch (error) {
      closeSync(fd);
      throw error;
    }
  }

  private constructor(address: string, fd: number) {
    this.address = address;
    this.#fd = fd;
    const info = structure(DEVICE_INFO_BYTES);
    ioctlStruct(fd, "VFIO_DEVICE_GET_INFO", VFIO_DEVICE_GET_INFO, info);
    const flags = info.getUint32(vfio_device_info.flags, true);
    const regions = info.getUint32(vfio_device_info.num_regions, true);
    if ((flags & VFIO_DEVICE_FLAGS_PCI) === 0 || regions <= VFIO_PCI_CONFIG_REGION_INDEX) {
      throw new HostError(`Assigned device ${address}: this host's kernel does not know it as a PCI device`);
    }
    this.#irqKinds = info.getUint32(vfio_device_info.num_irqs, true);
    this.#canReset = (flags & VFIO_DEVICE_FLAGS_RESET) !== 0;
    this.bars = Array.from({ length: PCI_STD_NUM_BARS }, (_, index) => this.#regionInfo(index));
    this.#config = this.#regionInfo(VFIO_PCI_CONFIG_REGION_INDEX);
  }

  /** What configuration mechanism 1 reaches. */
  configBytes(): Uint8Array {
    const bytes = Buffer.alloc(PCI_CFG_SPACE_SIZE);
    readSync(this.#fd, bytes, 0, bytes.length, this.#config.position);
    return bytes;
  }

  readConfig(offset: number, size: AccessSize): number {
    return this.#read(this.#config, offset, size);
  }

  writeConfig(offset: number, size: AccessSize, value: number): void {
    this.#write(this.#config, offset, size, value);
  }

  readRegion(index: number, offset: number, size: AccessSize): number {
    const region = this.bars[index];
    return region === undefined ? 0 : this.#read(region, offset, size);
  }

  writeRegion(index: number, offset: number, size: AccessSize, value: number): void {
    const region = this.bars[index];
    if (region !== undefined) this.#write(region, offset, size, value);
  }

  /** A device that cannot be reset by itself is left as it is. */
  reset(): void {
    if (this.#canReset) ioctl(this.#fd, "VFIO_DEVICE_RESET", VFIO_DEVICE_RESET);
  }

  /** Parts of a base address register's region as memory, until `close`. */
  map(index: number, spans: readonly Span[]): MappedSpan[] {
    const region = this.bars[index];
    if (region === undefined) return [];
    return spans.map((span) => {
      const mapped = { ...span, hva: mmapFile(this.#fd, span.length, region.position + span.offset) };
      this.#mapped.push(mapped);
      return mapped;
    });
  }

  /** How many interrupts of that kind the host's kernel hands over. */
  interrupts(index: number): number {
    if (index >= this.#irqKinds) return 0;
    const info = structure(SIZEOF_VFIO_IRQ_INFO);
    info.setUint32(vfio_irq_info.index, index, true);
    try {
      ioctlStruct(this.#fd, "VFIO_DEVICE_GET_IRQ_INFO", VFIO_DEVICE_GET_IRQ_INFO, info);
    } catch (error) {
      // The kernel says so of a kind that it knows and this device does not have.
      if (error instanceof SystemCallError && error.errno === EINVAL) return 0;
      throw error;
    }
    const canSignal = (info.getUint32(vfio_irq_info.flags, true) & VFIO_IRQ_INFO_EVENTFD) !== 0;
    return canSignal ? info.getUint32(vfio_irq_info.count, true) : 0;
  }

  /** From now on the first interrupt of that kind signals the eventfd. Throws SystemCallError. */
  connect(index: number, eventfd: number): void {
    this.#setEventfds(index, VFIO_IRQ_SET_ACTION_TRIGGER, 0, [eventfd]);
  }

  #vectors(index: number): VectorSource {
    return {
      // With nobody to signal yet.
      enableVectors: (count) => {
        this.#setEventfds(index, VFIO_IRQ_SET_ACTION_TRIGGER, 0, new Array<number>(count).fill(NO_EVENTFD));
      },
      connectVector: (vector, fd) => {
        this.#setEventfds(index, VFIO_IRQ_SET_ACTION_TRIGGER, vector, [fd]);
      },
      disableVectors: () => {
        this.#setNone(index, VFIO_IRQ_SET_ACTION_TRIGGER, 0);
      },
    };
  }

  #line(): LineSource {
    return {
      enableLine: (raised, acknowledged) => {
        this.connect(VFIO_PCI_INTX_IRQ_INDEX, raised);
        this.#setEventfds(VFIO_PCI_INTX_IRQ_INDEX, VFIO_IRQ_SET_ACTION_UNMASK, 0, [acknowledged]);
      },
      unmaskLine: () => {
        this.#setNone(VFIO_PCI_INTX_IRQ_INDEX, VFIO_IRQ_SET_ACTION_UNMASK, 1);
      },
      disableLine: () => {
        this.#setNone(VFIO_PCI_INTX_IRQ_INDEX, VFIO_IRQ_SET_ACTION_TRIGGER, 0);
      },
    };
  }

  close(): void {
    for (const { hva, length } of this.#mapped.splice(0)) munmap(hva, length);
    closeSync(this.#fd);
  }

  #setNone(index: number, action: number, count: number): void {
    const argument = irqSet(index, 0);
    argument.setUint32(vfio_irq_set.flags, VFIO_IRQ_SET_DATA_NONE | action, true);
    argument.setUint32(vfio_irq_set.count, count, true);
    ioctlStruct(this.#fd, "VFIO_DEVICE_SET_IRQS", VFIO_DEVICE_SET_IRQS, argument);
  }

  #setEventfds(index: number, action: number, start: number, eventfds: readonly number[]): void {
    const argument = irqSet(index, 4 * eventfds.length);
    argument.setUint32(vfio_irq_set.flags, VFIO_IRQ_SET_DATA_EVENTFD | action, true);
    argument.setUint32(vfio_irq_set.start, start, true);
    argument.setUint32(vfio_irq_set.count, eventfds.length, true);
    eventfds.forEach((fd, at) => {
      argument.setInt32(SIZEOF_VFIO_IRQ_SET + 4 * at, fd, true);
    });
    ioctlStruct(this.#fd, "VFIO_DEVICE_SET_IRQS", VFIO_DEVICE_SET_IRQS, argument);
  }

  #regionInfo(index: number): RegionInfo {
    const ask = (bytes: number): DataView<ArrayBuffer> => {
      const info = structure(bytes);
      info.setUint32(vfio_region_info.index, index, true);
      ioctlStruct(this.#fd, "VFIO_DEVICE_GET_REGION_INFO", VFIO_DEVICE_GET_REGION_INFO, info);
      return info;
    };
    const info = ask(SIZEOF_VFIO_REGION_INFO);
    // The kernel says how much room its capabilities need.
    const needed = info.getUint32(vfio_region_info.argsz, true);
    return readRegionInfo(needed > info.byteLength ? ask(Math.min(needed, MAX_REGION_INFO)) : info);
  }

  /** A device that does not answer, because it is gone, reads as all ones. */
  #read({ position, size: length }: RegionInfo, offset: number, size: AccessSize): number {
    if (offset + size > length) return 0;
    try {
      if (readSync(this.#fd, this.#bytes, 0, size, position + offset) === size) return this.#bytes.readUIntLE(0, size);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === undefined) throw error;
    }
    return 2 ** (8 * size) - 1;
  }

  #write({ position, size: length }: RegionInfo, offset: number, size: AccessSize, value: number): void {
    if (offset + size > length) return;
    this.#bytes.writeUIntLE(value, 0, size);
    try {
      writeSync(this.#fd, this.#bytes, 0, size, position + offset);
    } catch (error) {
      // As on a PC: what is written to a device that is gone is lost.
      if ((error as NodeJS.ErrnoException).code === undefined) throw error;
    }
  }
}

function irqSet(index: number, dataBytes: number): DataView<ArrayBuffer> {
  const argument = structure(SIZEOF_VFIO_IRQ_SET + dataBytes);
  argument.setUint32(vfio_irq_set.index, index, true);
  return argument;
}
