// RSDP, XSDT, FADT, FACS, MADT, DSDT and, with a PCI bus, MCFG, laid out from ACPI_GPA with the RSDP first.
// ACPI 6.4 chapter 5. Full (not hardware-reduced) ACPI: Linux keeps the 8259A and the PIT.
import type { GuestMemory } from "../../../devices/contracts.js";
import { ConfigError } from "../../errors.js";
import {
  ACPI_CAPACITY,
  ACPI_GPA,
  ACPI_GPE0_PORT,
  ACPI_PM1A_CNT_PORT,
  ACPI_PM1A_EVT_PORT,
  ACPI_PM_TIMER_PORT,
  ACPI_RESET_PORT,
  ACPI_SCI_GSI,
  IO_APIC_GPA,
  LOCAL_APIC_GPA,
} from "../../memory/layout.js";
import { GPE0_LENGTH } from "../../../devices/legacy/acpi-pm.js";
import { ioApicId } from "../mptable.js";
import { checksum, putAscii } from "../table-bytes.js";
import type { PciHostBridge } from "../pci-host-bridge.js";
import { dsdtBody, type VirtioMmioRange } from "./dsdt.js";
import { mcfgBody } from "./pci.js";

const HEADER_LENGTH = 36;
const RSDP_LENGTH = 36;
const FADT_LENGTH = 276;
const FACS_LENGTH = 64;

const ADDRESS_SPACE_IO = 1;
// FADT flags, table 5.10.
const WBINVD = 1 << 0;
const PROC_C1 = 1 << 2;
const PWR_BUTTON = 1 << 4; // absent as a fixed feature
const SLP_BUTTON = 1 << 5;
const FIX_RTC = 1 << 6;
const TMR_VAL_EXT = 1 << 8;
const RESET_REG_SUP = 1 << 10;
const HEADLESS = 1 << 12;
// IAPC_BOOT_ARCH, table 5.11. The 8042 flag is only set for a keyboard: else there is none to wait for.
const LEGACY_DEVICES = 1 << 0;
const HAS_8042 = 1 << 1;
const VGA_NOT_PRESENT = 1 << 2;
/** What the guest writes to the reset register. */
const RESET_VALUE = 1;

const PCAT_COMPAT = 1 << 0;
const LAPIC_ENABLED = 1 << 0;
const LEVEL_ACTIVE_HIGH = 0b1101;

export interface AcpiConfig {
  readonly cpus: number;
  readonly virtio: readonly VirtioMmioRange[];
  /** There is one behind the i8042. */
  readonly keyboard?: boolean;
  /** There is a bus. */
  readonly pci?: PciHostBridge | undefined;
}

/** Writes all tables; the result is the RSDP's address. */
export function writeAcpiTables(memory: GuestMemory, config: AcpiConfig): number {
  const bytes = acpiTables(config);
  if (bytes.length > ACPI_CAPACITY) {
    throw new ConfigError([
      `ACPI tables of ${String(bytes.length)} bytes are over the limit of ${String(ACPI_CAPACITY)}`,
    ]);
  }
  memory.slice(ACPI_GPA, bytes.length).set(bytes);
  return ACPI_GPA;
}

/** The image of all tables from ACPI_GPA on. */
export function acpiTables({ cpus, virtio, keyboard = false, pci }: AcpiConfig): Uint8Array {
  const dsdt = table("DSDT", 2, dsdtBody(virtio, keyboard, pci));
  const mcfg = pci === undefined ? undefined : table("MCFG", 1, mcfgBody(pci));
  const madt = table("APIC", 5, madtBody(cpus));
  // The FACS wants 64 bytes of alignment; the others get it too, for a readable dump.
  let next = ACPI_GPA + 64;
  const place = (length: number): number => {
    const at = next;
    next = (at + length + 63) & ~63;
    return at;
  };
  const facsAt = place(FACS_LENGTH);
  const dsdtAt = place(dsdt.length);
  const fadt = table("FACP", 6, fadtBody(facsAt, dsdtAt, keyboard));
  const fadtAt = place(fadt.length);
  const madtAt = place(madt.length);
  const mcfgAt = mcfg === undefined ? [] : [place(mcfg.length)];
  const xsdt = table("XSDT", 1, pointers([fadtAt, madtAt, ...mcfgAt]));
  const xsdtAt = place(xsdt.length);

  const image = new Uint8Array(next - ACPI_GPA);
  const put = (at: number, bytes: Uint8Array): void => {
    image.set(bytes, at - ACPI_GPA);
  };
  put(ACPI_GPA, rsdp(xsdtAt));
  put(facsAt, facs());
  put(dsdtAt, dsdt);
  put(fadtAt, fadt);
  put(madtAt, madt);
  for (const at of mcfgAt) put(at, mcfg ?? new Uint8Array(0));
  put(xsdtAt, xsdt);
  return image;
}

function table(signature: string, revision: number, body: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(HEADER_LENGTH + body.length);
  const data = new DataView(bytes.buffer);
  putAscii(bytes, 0, signature);
  data.setUint32(4, bytes.length, true);
  bytes[8] = revision;
  putAscii(bytes, 10, "VMLET ");
  putAscii(bytes, 16, "MICROVM ");
  data.setUint32(24, 1, true);
  putAscii(bytes, 28, "VMLT");
  data.setUint32(32, 1, true);
  bytes.set(body, HEADER_LENGTH);
  bytes[9] = checksum(bytes);
  return bytes;
}

function rsdp(xsdtAt: number): Uint8Array {
  const bytes = new Uint8Array(RSDP_LENGTH);
  const data = new DataView(bytes.buffer);
  putAscii(bytes, 0, "RSD PTR ");
  putAscii(bytes, 9, "VMLET ");
  bytes[15] = 2;
  data.setUint32(20, RSDP_LENGTH, true);
  data.setBigUint64(24, BigInt(xsdtAt), true);
  bytes[8] = checksum(bytes.subarray(0, 20));
  bytes[32] = checksum(bytes);
  return bytes;
}

function pointers(addresses: readonly number[]): Uint8Array {
  const bytes = new Uint8Array(addresses.length * 8);
  const data = new DataView(bytes.buffer);
  addresses.forEach((address, i) => {
    data.setBigUint64(i * 8, BigInt(address), true);
  });
  return bytes;
}

function facs(): Uint8Array {
  const bytes = new Uint8Array(FACS_LENGTH);
  putAscii(bytes, 0, "FACS");
  new DataView(bytes.buffer).setUint32(4, FACS_LENGTH, true);
  bytes[32] = 2;
  return bytes;
}

/** The comments name the fields of table 5.9, at their offsets less the header's 36 bytes. */
function fadtBody(facsAt: number, dsdtAt: number, keyboard: boolean): Uint8Array {
  const bytes = new Uint8Array(FADT_LENGTH);
  const data = new DataView(bytes.buffer);
  const register = (at: number, port: number, bits: number, accessSize: number): void => {
    bytes[at] = ADDRESS_SPACE_IO;
    bytes[at + 1] = bits;
    bytes[at + 3] = accessSize;
    data.setBigUint64(at + 4, BigInt(port), true);
  };
  data.setUint32(36, facsAt, true); // FIRMWARE_CTRL
  data.setUint32(40, dsdtAt, true); // DSDT
  data.setUint16(46, ACPI_SCI_GSI, true); // SCI_INT; SMI_CMD stays 0: always in ACPI mode
  data.setUint32(56, ACPI_PM1A_EVT_PORT, true); // PM1a_EVT_BLK
  data.setUint32(64, ACPI_PM1A_CNT_PORT, true); // PM1a_CNT_BLK
  data.setUint32(76, ACPI_PM_TIMER_PORT, true); // PM_TMR_BLK
  data.setUint32(80, ACPI_GPE0_PORT, true); // GPE0_BLK
  bytes[88] = 4; // PM1_EVT_LEN
  bytes[89] = 2; // PM1_CNT_LEN
  bytes[91] = 4; // PM_TMR_LEN
  bytes[92] = GPE0_LENGTH; // GPE0_BLK_LEN
  data.setUint16(96, 0xffff, true); // P_LVL2_LAT: no C2
  data.setUint16(98, 0xffff, true); // P_LVL3_LAT: no C3
  bytes[108] = 0x32; // CENTURY
  data.setUint16(109, LEGACY_DEVICES | VGA_NOT_PRESENT | (keyboard ? HAS_8042 : 0), true); // IAPC_BOOT_ARCH
  data.setUint32(
    112,
    WBINVD | PROC_C1 | PWR_BUTTON | SLP_BUTTON | FIX_RTC | TMR_VAL_EXT | RESET_REG_SUP | HEADLESS,
    true,
  );
  register(116, ACPI_RESET_PORT, 8, 1); // RESET_REG
  bytes[128] = RESET_VALUE;
  bytes[131] = 4; // minor version: 6.4
  data.setBigUint64(140, BigInt(dsdtAt), true); // X_DSDT
  register(148, ACPI_PM1A_EVT_PORT, 32, 2); // X_PM1a_EVT_BLK
  register(172, ACPI_PM1A_CNT_PORT, 16, 2); // X_PM1a_CNT_BLK
  register(208, ACPI_PM_TIMER_PORT, 32, 3); // X_PM_TMR_BLK
  register(220, ACPI_GPE0_PORT, 8 * GPE0_LENGTH, 1); // X_GPE0_BLK
  putAscii(bytes, 268, "VMLET");
  return bytes.subarray(HEADER_LENGTH);
}

function madtBody(cpus: number): Uint8Array {
  const u32 = (value: number): number[] => [0, 8, 16, 24].map((shift) => (value >>> shift) & 0xff);
  const processors = Array.from({ length: cpus }, (_, id) => [0, 8, id, id, ...u32(LAPIC_ENABLED)]);
  return Uint8Array.from([
    ...u32(LOCAL_APIC_GPA),
    ...u32(PCAT_COMPAT),
    ...processors.flat(),
    // I/O APIC with inputs from GSI 0.
    ...[1, 12, ioApicId(cpus), 0, ...u32(IO_APIC_GPA), ...u32(0)],
    // ISA IRQ n is input n, as KVM routes them by default; only the SCI differs: it is level-triggered.
    ...[2, 10, 0, ACPI_SCI_GSI, ...u32(ACPI_SCI_GSI), LEVEL_ACTIVE_HIGH, 0],
    // NMIs come to LINT1 of every processor.
    ...[4, 6, 0xff, 0, 0, 1],
  ]);
}
