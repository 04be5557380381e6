// DSDT: the S5 sleep type for power-off, the serial port, the clock, the VM's generation, virtio-mmio ranges.
import { ACPI_SLEEP_TYPE_S5, GPE_GENERATION } from "../../../devices/legacy/acpi-pm.js";
import {
  GENERATION_ID_GPA,
  I8042_COMMAND_PORT,
  I8042_DATA_PORT,
  KEYBOARD_GSI,
  RTC_GSI,
  RTC_INDEX_PORT,
  SERIAL0_GSI,
  SERIAL0_PORT,
  SERIAL_LENGTH,
} from "../../memory/layout.js";
import type { PciHostBridge } from "../pci-host-bridge.js";
import {
  device,
  eisaId,
  integer,
  interrupt,
  ioPorts,
  isaIrq,
  memory32,
  method,
  named,
  notify,
  pack,
  resources,
  scope,
  text,
} from "./aml.js";
import { pciDevices } from "./pci.js";

/** The registers of a virtio-mmio device as Linux's virtio_mmio driver finds it (LNRO0005). */
export interface VirtioMmioRange {
  readonly gpa: number;
  /** `bytes` */
  readonly length: number;
  readonly gsi: number;
}

/** What is common to all devices of this kind, whoever makes them. "Virtual Machine Generation ID", Microsoft, 2012. */
const GENERATION_COUNTER = "VM_Gen_Counter";
const GENERATION_CHANGED = 0x80;

/** The definition block, without its table header. */
export function dsdtBody(ranges: readonly VirtioMmioRange[], hasKeyboard = false, pci?: PciHostBridge): Uint8Array {
  const serial = device(
    "COM1",
    named("_HID", eisaId("PNP0501")),
    named("_UID", integer(1)),
    named("_CRS", resources(ioPorts(SERIAL0_PORT, SERIAL_LENGTH), isaIrq(SERIAL0_GSI))),
  );
  const clock = device(
    "RTC",
    named("_HID", eisaId("PNP0B00")),
    named("_CRS", resources(ioPorts(RTC_INDEX_PORT, 2), isaIrq(RTC_GSI))),
  );
  const keyboard = device(
    "KBD",
    named("_HID", eisaId("PNP0303")),
    named("_CRS", resources(ioPorts(I8042_DATA_PORT, 1), ioPorts(I8042_COMMAND_PORT, 1), isaIrq(KEYBOARD_GSI))),
  );
  const virtio = ranges.map(({ gpa, length, gsi }, i) =>
    device(
      `V${i.toString(16).toUpperCase().padStart(3, "0")}`,
      named("_HID", text("LNRO0005")),
      named("_UID", integer(i)),
      named("_CRS", resources(memory32(gpa, length), interrupt(gsi))),
    ),
  );
  const bus = pci === undefined ? [] : pciDevices(pci);
  const generation = device(
    "VGEN",
    named("_HID", text("VMLT0001")),
    named("_CID", text(GENERATION_COUNTER)),
    named("_DDN", text(GENERATION_COUNTER)),
    // The address's two halves.
    named("ADDR", pack(integer(GENERATION_ID_GPA), integer(0))),
  );
  const changed = method(
    `_E${GPE_GENERATION.toString(16).toUpperCase().padStart(2, "0")}`,
    notify("\\_SB.VGEN", GENERATION_CHANGED),
  );
  const sleep = named("\\_S5", pack(integer(ACPI_SLEEP_TYPE_S5), integer(0), integer(0), integer(0)));
  return Uint8Array.from([
    ...sleep,
    ...scope("\\_SB", serial, clock, ...(hasKeyboard ? [keyboard] : []), generation, ...virtio, ...bus),
    ...scope("\\_GPE", changed),
  ]);
}
