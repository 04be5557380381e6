// MP floating pointer and configuration table, for kernels without ACPI.
// Intel MultiProcessor Specification 1.4, chapter 4.
import type { GuestMemory } from "../../devices/contracts.js";
import { PCI_DEVICES } from "../../devices/pci/constants.js";
import { ConfigError } from "../errors.js";
import {
  GSI_COUNT,
  IO_APIC_GPA,
  LOCAL_APIC_GPA,
  MP_FLOATING_POINTER_GPA,
  MP_TABLE_CAPACITY,
  MP_TABLE_GPA,
  pciGsi,
} from "../memory/layout.js";
import { checksum, putAscii } from "./table-bytes.js";

const SPEC_1_4 = 4;
const HEADER_LENGTH = 44;
const LOCAL_APIC_VERSION = 0x14;
const IO_APIC_VERSION = 0x11;

const ENTRY_PROCESSOR = 0;
const ENTRY_BUS = 1;
const ENTRY_IO_APIC = 2;
const ENTRY_IO_INTERRUPT = 3;
const ENTRY_LOCAL_INTERRUPT = 4;

const CPU_ENABLED = 1 << 0;
const CPU_BOOT_PROCESSOR = 1 << 1;
const IO_APIC_USABLE = 1;
const INT = 0;
const NMI = 1;
const EXTINT = 3;
/** Linux takes the number of a PCI bus for that bus's own. */
const PCI_BUS = 0;
const PINS_OF_A_DEVICE = 4;
/** Feature bits FPU and APIC, and a family; Linux takes the rest from CPUID. */
const CPU_SIGNATURE = 0x600;
const CPU_FEATURES = 0x201;
const ALL_APICS = 0xff;

/** The I/O APIC's id follows the processors'. */
export function ioApicId(cpus: number): number {
  return cpus;
}

/** The configuration table for `cpus` processors with APIC ids from 0, and for a machine with or without a PCI bus. */
export function mpTable(cpus: number, hasPci: boolean): Uint8Array {
  const entries: number[][] = [];
  for (let id = 0; id < cpus; id++) {
    const flags = CPU_ENABLED | (id === 0 ? CPU_BOOT_PROCESSOR : 0);
    entries.push([
      ENTRY_PROCESSOR,
      id,
      LOCAL_APIC_VERSION,
      flags,
      ...u32(CPU_SIGNATURE),
      ...u32(CPU_FEATURES),
      ...u32(0),
      ...u32(0),
    ]);
  }
  const isaBus = hasPci ? PCI_BUS + 1 : 0;
  if (hasPci) entries.push([ENTRY_BUS, PCI_BUS, ...Buffer.from("PCI   ")]);
  entries.push([ENTRY_BUS, isaBus, ...Buffer.from("ISA   ")]);
  const apic = ioApicId(cpus);
  entries.push([ENTRY_IO_APIC, apic, IO_APIC_VERSION, IO_APIC_USABLE, ...u32(IO_APIC_GPA)]);
  // KVM's default routing: IRQ n at pin n, the timer's too. Above 15, the lines have no ISA name.
  for (let irq = 0; irq < (hasPci ? pciGsi(0) : GSI_COUNT); irq++) {
    entries.push([ENTRY_IO_INTERRUPT, INT, 0, 0, isaBus, irq, apic, irq]);
  }
  // Pin INTA# of each device (appendix D.3); the flags of 0 say what its bus does: a level, active low.
  for (let device = 1; hasPci && device < PCI_DEVICES; device++) {
    entries.push([ENTRY_IO_INTERRUPT, INT, 0, 0, PCI_BUS, PINS_OF_A_DEVICE * device, apic, pciGsi(device)]);
  }
  entries.push([ENTRY_LOCAL_INTERRUPT, EXTINT, 0, 0, isaBus, 0, 0, 0]);
  entries.push([ENTRY_LOCAL_INTERRUPT, NMI, 0, 0, isaBus, 0, ALL_APICS, 1]);

  const body = entries.flat();
  const table = new Uint8Array(HEADER_LENGTH + body.length);
  const data = new DataView(table.buffer);
  putAscii(table, 0, "PCMP");
  data.setUint16(4, table.length, true);
  table[6] = SPEC_1_4;
  putAscii(table, 8, "VMLET   ");
  putAscii(table, 16, "MICRO-VM    ");
  data.setUint16(34, entries.length, true);
  data.setUint32(36, LOCAL_APIC_GPA, true);
  table.set(body, HEADER_LENGTH);
  table[7] = checksum(table);
  return table;
}

/** Floating pointer structure, 16 bytes. */
export function mpFloatingPointer(tableGpa: number): Uint8Array {
  const pointer = new Uint8Array(16);
  putAscii(pointer, 0, "_MP_");
  new DataView(pointer.buffer).setUint32(4, tableGpa, true);
  pointer[8] = 1; // length in paragraphs
  pointer[9] = SPEC_1_4;
  pointer[10] = checksum(pointer);
  return pointer;
}

export function writeMpTable(memory: GuestMemory, cpus: number, hasPci: boolean): void {
  const table = mpTable(cpus, hasPci);
  if (table.length > MP_TABLE_CAPACITY) {
    throw new ConfigError([
      `An MP table for ${String(cpus)} vCPUs has ${String(table.length)} bytes, the limit is ${String(MP_TABLE_CAPACITY)}`,
    ]);
  }
  memory.slice(MP_TABLE_GPA, table.length).set(table);
  memory.slice(MP_FLOATING_POINTER_GPA, 16).set(mpFloatingPointer(MP_TABLE_GPA));
}

function u32(value: number): number[] {
  return [value & 0xff, (value >>> 8) & 0xff, (value >>> 16) & 0xff, value >>> 24];
}
