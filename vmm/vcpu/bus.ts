// One address space (ports or MMIO): which device answers which range.
// Ranges never overlap; unclaimed addresses read all ones and drop writes, as on a PC.
import type { AccessSize, BusDevice } from "../../devices/contracts.js";
import { BusError } from "../errors.js";

const LIMITS = { pio: 0x1_0000, mmio: 2 ** 52 } as const;

interface Range {
  readonly base: number;
  /** First address after the range. */
  readonly end: number;
  readonly device: BusDevice;
}

export class Bus {
  readonly space: "pio" | "mmio";
  /** Accesses that no device has claimed. */
  unclaimedReads = 0;
  unclaimedWrites = 0;
  /** Ascending by base. */
  readonly #ranges: Range[] = [];
  /** The range of the last access: the next one is often for the same device. */
  #last: Range = { base: 0, end: 0, device: { name: "none", read: () => 0, write: () => undefined } };

  constructor(space: "pio" | "mmio") {
    this.space = space;
  }

  /** Throws BusError for a range that is empty, leaves the address space or meets another. */
  attach(base: number, length: number, device: BusDevice): void {
    const end = base + length;
    const range = `${device.name} at 0x${base.toString(16)}, ${String(length)} bytes`;
    if (!Number.isInteger(base) || !Number.isInteger(length) || base < 0 || length <= 0) {
      throw new BusError(`The ${this.space} range of ${range} is empty or negative`);
    }
    if (end > LIMITS[this.space]) {
      throw new BusError(`The ${this.space} range of ${range} ends after 0x${LIMITS[this.space].toString(16)}`);
    }
    const other = this.#ranges.find((taken) => base < taken.end && taken.base < end);
    if (other !== undefined) {
      throw new BusError(`The ${this.space} range of ${range} overlaps ${other.device.name}`);
    }
    this.#ranges.push({ base, end, device });
    this.#ranges.sort((a, b) => a.base - b.base);
  }

  read(address: number, size: AccessSize): number {
    const range = this.#find(address, size);
    if (range !== undefined) return range.device.read(address - range.base, size);
    this.unclaimedReads++;
    return size === 4 ? 0xffff_ffff : size === 2 ? 0xffff : 0xff;
  }

  write(address: number, size: AccessSize, value: number): void {
    const range = this.#find(address, size);
    if (range !== undefined) range.device.write(address - range.base, size, value);
    else this.unclaimedWrites++;
  }

  /** The range that holds the first byte; an access over its end is unclaimed. */
  #find(address: number, size: number): Range | undefined {
    const last = this.#last;
    if (address >= last.base && address + size <= last.end) return last;
    let low = 0;
    let high = this.#ranges.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const range = this.#ranges[middle];
      if (range === undefined) return undefined;
      if (address < range.base) high = middle;
      else if (address >= range.end) low = middle + 1;
      else {
        if (address + size > range.end) return undefined;
        this.#last = range;
        return range;
      }
    }
    return undefined;
  }
}
