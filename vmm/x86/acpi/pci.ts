// What ACPI says of the PCI host bridge: the device in the DSDT, and the table MCFG. ACPI 6.4 §6.2.2, §6.4.3.5; PCI Firmware 3.3 §4.1.
// Left out on purpose: _OSC, because there is nothing to hand over.
import type { PciHostBridge } from "../pci-host-bridge.js";
import { PCI_DEVICES } from "../../../devices/pci/constants.js";
import { PCI_CONFIG_PORT, pciGsi } from "../../memory/layout.js";
import {
  addressSpace,
  busNumbers,
  device,
  eisaId,
  integer,
  ioPorts,
  memory32,
  named,
  pack,
  resources,
  type Aml,
} from "./aml.js";

const PCI_CONFIG_PORTS = 8;
/** Buses that ECAM has: 1 MiB each. */
const LAST_BUS = 0;

/** Two devices: the bridge, and who has the memory of its configuration space. */
export function pciDevices({ ecam, window, highWindow }: PciHostBridge): Aml[] {
  return [
    device(
      "PCI0",
      named("_HID", eisaId("PNP0A08")),
      named("_CID", eisaId("PNP0A03")),
      named("_UID", integer(0)),
      named("_SEG", integer(0)),
      named("_BBN", integer(0)),
      named(
        "_CRS",
        resources(
          busNumbers(0, LAST_BUS),
          ioPorts(PCI_CONFIG_PORT, PCI_CONFIG_PORTS),
          addressSpace(window.gpa, window.length, 4),
          addressSpace(highWindow.gpa, highWindow.length, 8),
        ),
      ),
      named("_PRT", pack(...Array.from({ length: PCI_DEVICES - 1 }, (_, index) => interruptRoute(index + 1)))),
    ),
    device(
      "ECAM",
      named("_HID", eisaId("PNP0C02")),
      named("_UID", integer(1)),
      named("_CRS", resources(memory32(ecam.gpa, ecam.length))),
    ),
  ];
}

/** ACPI 6.4 §6.2.13: where pin INTA# of any function of the device leads, at the I/O APIC itself. */
function interruptRoute(number: number): Aml {
  const anyFunction = 0xffff;
  return pack(integer(number * 0x1_0000 + anyFunction), integer(0), integer(0), integer(pciGsi(number)));
}

/** Without its header. */
export function mcfgBody({ ecam }: PciHostBridge): Uint8Array {
  const body = new DataView(new ArrayBuffer(8 + 16));
  body.setBigUint64(8, BigInt(ecam.gpa), true);
  body.setUint16(16, 0, true); // segment
  body.setUint8(18, 0); // first bus
  body.setUint8(19, LAST_BUS);
  return new Uint8Array(body.buffer);
}
