// A device of the host as a guest's bus meets it: configuration space that a test has written, and a note of every access.
import { AssignedFunction, type HostFunction } from "../../devices/pci/assigned-function.js";
import { assignedLayout, type AssignedLayout, type AssignedParts } from "../../devices/pci/assigned-layout.js";
import type { AccessSize } from "../../devices/contracts.js";
import { Msi } from "../../devices/pci/msi.js";
import { Msix, type MsiMessage } from "../../devices/pci/msix.js";
import { BarAddresses } from "../../vmm/pci/vfio/bar-addresses.js";
import { HIGH_WINDOW, WINDOW } from "./pci-machine.js";

export const VENDOR_AT = 0x40;
export const PM_AT = 0x50;
export const MSI_AT = 0x58;
export const MSIX_AT = 0x70;
export const EXPRESS_AT = 0x80;
export const BAR_LENGTH = 0x4000;
export const TABLE_OFFSET = 0x2000;
export const PBA_OFFSET = 0x3000;
export const VECTORS = 3;

/** An endpoint with five capabilities, a range of 64 bits, one of 32 bits and an I/O range. */
export function exampleConfig(): Uint8Array {
  const view = new DataView(new ArrayBuffer(256));
  const capability = (at: number, id: number, next: number): void => view.setUint16(at, id | (next << 8), true);
  view.setUint32(0, 0x0010_1b36, true);
  view.setUint32(4, 0x0010_0006, true);
  view.setUint32(8, 0x0108_0202, true);
  view.setUint32(0x10, 0xfebf_0004, true);
  view.setUint32(0x18, 0xfebe_0000, true);
  view.setUint32(0x1c, 0xc001, true);
  view.setUint32(0x2c, 0x1100_1af4, true);
  view.setUint8(0x34, VENDOR_AT);
  view.setUint16(0x3c, 0x010b, true);
  capability(VENDOR_AT, 0x09, PM_AT);
  view.setUint8(VENDOR_AT + 2, 0x10);
  capability(PM_AT, 0x01, MSI_AT);
  view.setUint16(PM_AT + 4, 3, true);
  capability(MSI_AT, 0x05, MSIX_AT);
  // Eight vectors, 64 bits, masks, and on, as a driver of the host may have left it.
  view.setUint16(MSI_AT + 2, 0x0187, true);
  capability(MSIX_AT, 0x11, EXPRESS_AT);
  view.setUint16(MSIX_AT + 2, VECTORS - 1, true);
  view.setUint32(MSIX_AT + 4, TABLE_OFFSET, true);
  view.setUint32(MSIX_AT + 8, PBA_OFFSET, true);
  capability(EXPRESS_AT, 0x10, 0);
  view.setUint16(EXPRESS_AT + 2, 0x0002, true);
  view.setUint32(EXPRESS_AT + 4, 0x1000_8001, true);
  view.setUint32(EXPRESS_AT + 0x0c, 0x0043_f812, true);
  return new Uint8Array(view.buffer);
}

/** What the host's kernel hands over of `exampleConfig`. */
export const EXAMPLE_PARTS: AssignedParts = {
  barSizes: [BAR_LENGTH, 0, 0x400, 0x20, 0, 0],
  hasLine: true,
  msiVectors: 4,
  msixVectors: VECTORS,
};

/** Remembers what was asked of it: "config 4 2 = 402", "bar0 1000 4". */
export class NotingDevice implements HostFunction {
  readonly log: string[] = [];
  readonly config: Uint8Array;

  constructor(config: Uint8Array) {
    this.config = config;
  }

  readConfig(offset: number, size: AccessSize): number {
    this.log.push(`config ${offset.toString(16)} ${String(size)}`);
    let value = 0;
    for (let byte = size - 1; byte >= 0; byte--) value = value * 256 + (this.config[offset + byte] ?? 0);
    return value;
  }

  writeConfig(offset: number, size: AccessSize, value: number): void {
    this.log.push(`config ${offset.toString(16)} ${String(size)} = ${value.toString(16)}`);
  }

  readRegion(index: number, offset: number, size: AccessSize): number {
    this.log.push(`bar${String(index)} ${offset.toString(16)} ${String(size)}`);
    return 0x5a;
  }

  writeRegion(index: number, offset: number, size: AccessSize, value: number): void {
    this.log.push(`bar${String(index)} ${offset.toString(16)} ${String(size)} = ${value.toString(16)}`);
  }

  reset(): void {
    this.log.push("reset");
  }
}

export interface AssignedRig {
  readonly host: NotingDevice;
  readonly layout: AssignedLayout;
  readonly function: AssignedFunction;
  readonly msix: Msix | undefined;
  readonly msi: Msi | undefined;
  readonly sent: MsiMessage[];
}

/** Of `exampleConfig`, unless another is given. Its line is noted in the host's log: "line on", "line off". */
export function assignedRig(config = exampleConfig(), parts = EXAMPLE_PARTS): AssignedRig {
  const host = new NotingDevice(config);
  const layout = assignedLayout(config, parts);
  const sent: MsiMessage[] = [];
  const send = (message: MsiMessage): void => {
    sent.push(message);
  };
  const msix = layout.msix === undefined ? undefined : new Msix({ vectors: layout.msix.vectors, send });
  const msi = layout.msi === undefined ? undefined : new Msi({ vectors: layout.msi.vectors, send });
  const letUseLine = (isOn: boolean): void => {
    host.log.push(isOn ? "line on" : "line off");
  };
  const addresses = new BarAddresses(WINDOW, HIGH_WINDOW, 0x1_0000).place(layout.bars);
  const interrupts = { msix, msi, letUseLine };
  const fn = new AssignedFunction({ name: "0000:01:00.1", host, layout, interrupts, addresses });
  return { host, layout, function: fn, msix, msi, sent };
}
