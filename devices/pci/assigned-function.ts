// A device of the host as a function of the guest's bus. Configuration space is the monitor's (assigned-layout.ts), as are the
// MSI-X table and what is pending; all else in the device's ranges is the device's own, by an access at a time unless
// somebody has put its memory there.
import type { AccessSize, BusDevice } from "../contracts.js";
import { pbaLength, type AssignedLayout, type MsixPlace } from "./assigned-layout.js";
import {
  PCI_COMMAND,
  PCI_COMMAND_INTX_DISABLE,
  PCI_COMMAND_MASTER,
  PCI_COMMAND_MEMORY,
  PCI_EXP_DEVCAP,
  PCI_EXP_DEVCAP_FLR,
  PCI_EXP_DEVCTL,
  PCI_EXP_DEVCTL_BCR_FLR,
  PCI_INTERRUPT_PIN,
  PCI_MSIX_ENTRY_SIZE,
  PCI_STATUS,
  PCI_STATUS_INTERRUPT,
} from "./constants.js";
import { EmulatedFunction } from "./function.js";
import type { Msi } from "./msi.js";
import type { Msix } from "./msix.js";

/** The device itself. `offset` lies within what it has; values are unsigned. */
export interface HostFunction {
  readConfig(offset: number, size: AccessSize): number;
  writeConfig(offset: number, size: AccessSize, value: number): void;
  /** Of a base address register. */
  readRegion(index: number, offset: number, size: AccessSize): number;
  writeRegion(index: number, offset: number, size: AccessSize, value: number): void;
  reset(): void;
}

/** What takes what the guest's driver says of interrupts. */
export interface AssignedInterruptParts {
  readonly msix: Msix | undefined;
  readonly msi: Msi | undefined;
  /** The guest lets the device use its line, or no more. */
  letUseLine(isOn: boolean): void;
}

export interface AssignedOptions {
  readonly name: string;
  readonly host: HostFunction;
  readonly layout: AssignedLayout;
  /** Of the ways to interrupt that the layout has. */
  readonly interrupts: AssignedInterruptParts;
  /** Where each range lies at first, in the order of the layout's. */
  readonly addresses: readonly number[];
}

export class AssignedFunction extends EmulatedFunction {
  readonly #host: HostFunction;
  readonly #layout: AssignedLayout;
  readonly #interrupts: AssignedInterruptParts;
  #command: number;

  constructor({ name, host, layout, interrupts, addresses }: AssignedOptions) {
    super({
      name,
      vendorId: layout.vendorId,
      deviceId: layout.deviceId,
      revision: layout.revision,
      classCode: layout.classCode,
      subsystemVendorId: layout.subsystemVendorId,
      subsystemId: layout.subsystemId,
      bars: layout.bars.map((bar, at) => ({
        ...bar,
        address: addresses[at] ?? 0,
        region: region(name, host, layout, interrupts.msix, bar.index),
      })),
      capabilities: layout.capabilities,
      ...(layout.msix !== undefined &&
        interrupts.msix !== undefined && { msix: { ...layout.msix, msix: interrupts.msix } }),
    });
    this.#host = host;
    this.#layout = layout;
    this.#interrupts = interrupts;
    // A function that is alone in its device has the first pin.
    if (layout.hasLine) this.config.set(PCI_INTERRUPT_PIN, [1]);
    // Its line is nobody's until the guest has written its own command: a driver that uses messages never needs it.
    this.#command = PCI_COMMAND_MEMORY | PCI_COMMAND_INTX_DISABLE;
    host.writeConfig(PCI_COMMAND, 2, this.#command);
  }

  override readConfig(offset: number, size: AccessSize): number {
    if (this.#isThrough(offset, size)) return this.#host.readConfig(offset, size);
    const value = super.readConfig(offset, size);
    if (!this.#layout.hasLine || offset > PCI_STATUS || offset + size <= PCI_STATUS) return value;
    const asks = this.#host.readConfig(PCI_STATUS, 2) & PCI_STATUS_INTERRUPT;
    return (value | (asks << (8 * (PCI_STATUS - offset)))) >>> 0;
  }

  override writeConfig(offset: number, size: AccessSize, value: number): void {
    if (this.#isThrough(offset, size)) {
      this.#host.writeConfig(offset, size, value);
      return;
    }
    super.writeConfig(offset, size, value);
    const isReset = this.#asksForReset(offset, size, value);
    if (isReset) {
      this.#host.reset();
      // A reset device masters nothing, whatever the registers said before; nor does the guest's view of it.
      this.config.setU16(PCI_COMMAND, this.config.readU16(PCI_COMMAND) & ~PCI_COMMAND_MASTER);
    }
    if (this.#layout.msi !== undefined) this.#interrupts.msi?.look(this.config, this.#layout.msi.at);
    if (isReset || (offset < PCI_STATUS && offset + size > PCI_COMMAND)) this.#follow();
  }

  /** The registers of a vendor's own capability, all of the access. */
  #isThrough(offset: number, size: AccessSize): boolean {
    return this.#layout.through.some((span) => offset >= span.offset && offset + size <= span.offset + span.length);
  }

  /** A function-level reset, of a device that says it has one (PCI Express Base 5.0 §6.6.2). */
  #asksForReset(offset: number, size: AccessSize, value: number): boolean {
    const at = this.#layout.expressAt;
    if (at === 0 || (this.config.readU32(at + PCI_EXP_DEVCAP) & PCI_EXP_DEVCAP_FLR) === 0) return false;
    const high = at + PCI_EXP_DEVCTL + 1;
    if (high < offset || high >= offset + size) return false;
    return ((value >>> (8 * (high - offset))) & (PCI_EXP_DEVCTL_BCR_FLR >>> 8)) !== 0;
  }

  /** Whether the device may write to memory or use its line is the guest's choice; that its registers answer is not, they are mapped. */
  #follow(): void {
    const guests = this.config.readU16(PCI_COMMAND);
    const mayUseLine = this.#layout.hasLine && (guests & PCI_COMMAND_INTX_DISABLE) === 0;
    const command = PCI_COMMAND_MEMORY | (guests & PCI_COMMAND_MASTER) | (mayUseLine ? 0 : PCI_COMMAND_INTX_DISABLE);
    if (command === this.#command) return;
    const isLineChanged = ((command ^ this.#command) & PCI_COMMAND_INTX_DISABLE) !== 0;
    this.#command = command;
    // Somebody listens before the device speaks.
    if (isLineChanged && mayUseLine) this.#interrupts.letUseLine(true);
    this.#host.writeConfig(PCI_COMMAND, 2, command);
    if (isLineChanged && !mayUseLine) this.#interrupts.letUseLine(false);
  }
}

function monitorsParts(place: MsixPlace, { vectors, table, pba }: Msix) {
  return [
    { bar: place.bar, offset: place.tableOffset, length: PCI_MSIX_ENTRY_SIZE * vectors, device: table },
    { bar: place.pbaBar, offset: place.pbaOffset, length: pbaLength(vectors), device: pba },
  ];
}

/** One range of the device, with the MSI-X table and the pending bits that may lie in it. */
function region(
  name: string,
  host: HostFunction,
  { msix: place }: AssignedLayout,
  msix: Msix | undefined,
  index: number,
): BusDevice {
  const parts = (place === undefined || msix === undefined ? [] : monitorsParts(place, msix)).filter(
    ({ bar }) => bar === index,
  );
  const partAt = (offset: number, size: AccessSize) =>
    parts.find((part) => offset >= part.offset && offset + size <= part.offset + part.length);
  return {
    name: `${name}-bar${String(index)}`,
    read: (offset, size) => {
      const part = partAt(offset, size);
      return part === undefined ? host.readRegion(index, offset, size) : part.device.read(offset - part.offset, size);
    },
    write: (offset, size, value) => {
      const part = partAt(offset, size);
      if (part === undefined) host.writeRegion(index, offset, size, value);
      else part.device.write(offset - part.offset, size, value);
    },
  };
}
