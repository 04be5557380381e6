// The root bus: which function answers an access to configuration space or to a range that a base address register has
// placed. What is not in one of the windows does not get here. PCI Express Base 5.0 §7.2.2.
import type { AccessSize, BusDevice } from "../../devices/contracts.js";
import { PCI_CFG_SPACE_EXP_SIZE, PCI_DEVICES, PCI_FUNCTIONS } from "../../devices/pci/constants.js";
import type { DecodedBar, PciFunction } from "../../devices/pci/function.js";

/** A range of guest-physical addresses that the host bridge hands to the bus. */
export interface PciWindow {
  readonly gpa: number;
  /** `bytes` */
  readonly length: number;
}

interface PlacedBar extends DecodedBar {
  readonly function: PciFunction;
  /** Nothing else is decoded within. */
  readonly isAlone: boolean;
}

interface Move {
  readonly fn: PciFunction;
  readonly index: number;
  readonly from: number | undefined;
  readonly to: number | undefined;
}

/** As a PC answers where nobody does. */
function allOnes(size: AccessSize): number {
  return 2 ** (8 * size) - 1;
}

export class PciRootBus {
  /** Configuration space of bus 0, from the start of ECAM. */
  readonly ecam: BusDevice;
  /** One for each window, from its start. */
  readonly windows: readonly (PciWindow & { readonly device: BusDevice })[];
  readonly #functions = new Map<number, PciFunction>();
  /** In the order of device numbers: where two overlap, the first answers. */
  #placed: readonly PlacedBar[] = [];
  /** Where each function has been told that its ranges lie. */
  readonly #told = new Map<PciFunction, Map<number, number>>();

  constructor(windows: readonly PciWindow[]) {
    this.ecam = {
      name: "pci-ecam",
      read: (offset, size) => {
        const fn = this.#functions.get(Math.floor(offset / PCI_CFG_SPACE_EXP_SIZE));
        return fn?.readConfig(offset % PCI_CFG_SPACE_EXP_SIZE, size) ?? allOnes(size);
      },
      write: (offset, size, value) => {
        const fn = this.#functions.get(Math.floor(offset / PCI_CFG_SPACE_EXP_SIZE));
        fn?.writeConfig(offset % PCI_CFG_SPACE_EXP_SIZE, size, value);
      },
    };
    this.windows = windows.map((window) => ({ ...window, device: this.#windowDevice(window) }));
  }

  /** Puts a function on the bus, as `device`.0. Throws RangeError for a number that is taken or not there. */
  attach(device: number, fn: PciFunction): void {
    const key = device * PCI_FUNCTIONS;
    if (device < 0 || device >= PCI_DEVICES || this.#functions.has(key)) {
      throw new RangeError(`PCI device ${String(device)} (${fn.name}) is taken or beyond ${String(PCI_DEVICES - 1)}`);
    }
    this.#functions.set(key, fn);
    fn.decodeChanged = () => {
      this.#place();
    };
    this.#place();
  }

  #windowDevice(window: PciWindow): BusDevice {
    return {
      name: `pci-${window.gpa.toString(16)}`,
      read: (offset, size) => {
        const bar = this.#at(window.gpa + offset, size);
        return bar?.function.readBar(bar.index, window.gpa + offset - bar.address, size) ?? allOnes(size);
      },
      write: (offset, size, value) => {
        const bar = this.#at(window.gpa + offset, size);
        bar?.function.writeBar(bar.index, window.gpa + offset - bar.address, size, value);
      },
    };
  }

  #at(gpa: number, size: number): PlacedBar | undefined {
    return this.#placed.find(({ address, length }) => gpa >= address && gpa + size <= address + length);
  }

  /** Somebody's ranges have moved: those in a window answer; who lies in one alone is told where. */
  #place(): void {
    const devices = [...this.#functions].sort(([a], [b]) => a - b).map(([, fn]) => fn);
    const decoded = devices
      .flatMap((fn) => fn.decoded().map((bar) => ({ ...bar, function: fn })))
      .filter(({ address, length }) =>
        this.windows.some((window) => address >= window.gpa && address + length <= window.gpa + window.length),
      );
    this.#placed = decoded.map((bar) => ({
      ...bar,
      isAlone: decoded.every((other) => other === bar || !overlap(bar, other)),
    }));
    const moves = devices.flatMap((fn) => this.#movesOf(fn));
    // Who leaves goes first: another may come to the same place.
    for (const { fn, index, from } of moves) if (from !== undefined) fn.barPlaced?.(index, undefined);
    for (const { fn, index, to } of moves) if (to !== undefined) fn.barPlaced?.(index, to);
  }

  #movesOf(fn: PciFunction): Move[] {
    const before = this.#told.get(fn) ?? new Map<number, number>();
    const now = new Map(
      this.#placed.filter((bar) => bar.function === fn && bar.isAlone).map(({ index, address }) => [index, address]),
    );
    this.#told.set(fn, now);
    return [...new Set([...before.keys(), ...now.keys()])]
      .filter((index) => before.get(index) !== now.get(index))
      .map((index) => ({ fn, index, from: before.get(index), to: now.get(index) }));
  }
}

function overlap(a: DecodedBar, b: DecodedBar): boolean {
  return a.address < b.address + b.length && b.address < a.address + a.length;
}
