// Every guest-physical address, port and interrupt number of the machine, ascending.
// Keep the order, and keep the picture in DESIGN.md ("Guest memory") in step with it.

export const PAGE_SIZE = 0x1000;
export const KIB = 1024;
export const MIB = 1024 * KIB;
export const GIB = 1024 * MIB;

// == Low RAM: 0x0 .. 0x9_e000, 632 KiB, usable RAM after boot ==================

/** MP floating pointer: the first kilobyte is the first place where Linux looks. */
export const MP_FLOATING_POINTER_GPA = 0x10;
/** Flat code and data segments for the boot processor. */
export const BOOT_GDT_GPA = 0x500;
/** Empty interrupt table: a fault before the kernel loads its own is a triple fault. */
export const BOOT_IDT_GPA = 0x580;
/** PVH: hvm_start_info. */
export const PVH_START_INFO_GPA = 0x6000;
/** PVH: hvm_modlist_entry[1], the initrd. */
export const PVH_MODLIST_GPA = 0x6040;
/** PVH: hvm_memmap_table_entry[]. */
export const PVH_MEMMAP_GPA = 0x6080;
/** struct boot_params, the "zero page" of the Linux/x86 boot protocol, 4 KiB. */
export const BOOT_PARAMS_GPA = 0x7000;
/** Initial stack pointer; grows down over the page after the zero page. */
export const BOOT_STACK_GPA = 0x8ff0;
/** Identity-mapping page tables: one PML4, one PDPT, four page directories. */
export const BOOT_PML4_GPA = 0x9000;
export const BOOT_PDPT_GPA = 0xa000;
export const BOOT_PD_GPA = 0xb000;
/** NUL-terminated kernel command line. */
export const CMDLINE_GPA = 0x2_0000;
/** Room for the command line, terminator included; the kernel's own limit is lower. */
export const CMDLINE_CAPACITY = 0x1_0000;

// == Reserved: 0x9_e000 .. 0xa_0000, 8 KiB, "EBDA" =============================

/** MP configuration table: header, 20 bytes a CPU, 8 bytes a bus, I/O APIC or interrupt. */
export const EBDA_GPA = 0x9_e000;
export const MP_TABLE_GPA = EBDA_GPA;
export const MP_TABLE_CAPACITY = 0x2000;

// == Legacy hole: 0xa_0000 .. 0x10_0000, 384 KiB, reserved in E820 =============

export const LEGACY_HOLE_GPA = 0xa_0000;
/** ACPI tables, RSDP first: 0xe_0000 is where a BIOS would have left them. */
export const ACPI_GPA = 0xe_0000;
export const ACPI_CAPACITY = 0x1_0000;
/** The VM's generation: 16 bytes in a page of their own, other ones in every guest that goes on from a snapshot. */
export const GENERATION_ID_GPA = 0xf_0000;
export const GENERATION_ID_LENGTH = 16;

// == High RAM: 0x10_0000 .. min(RAM, 3 GiB) ====================================

export const HIGH_RAM_GPA = 0x10_0000;

// == MMIO hole: 0xc000_0000 .. 0x1_0000_0000, 1 GiB ============================

export const MMIO_HOLE_GPA = 0xc000_0000;
/** Boot timer and exit status (devices/pseudo/boot-timer.ts), one page. */
export const BOOT_TIMER_GPA = 0xc000_0000;
export const BOOT_TIMER_LENGTH = PAGE_SIZE;
/** virtio-mmio windows, one page each, in the order of the configuration. */
export const VIRTIO_MMIO_GPA = 0xc000_1000;
export const VIRTIO_MMIO_LENGTH = PAGE_SIZE;
/** The command's channel (devices/pseudo/command-channel.ts): memory, if a command wants it. */
export const COMMAND_CHANNEL_GPA = 0xc010_0000;
/** PCI: what base address registers below 4 GiB may be set to, if there is a bus. Big ones find room, too: 256 MiB at 0xd000_0000. */
export const PCI_WINDOW_GPA = 0xc800_0000;
export const PCI_WINDOW_LENGTH = 384 * MIB;
/** PCI: configuration space as memory (ECAM), 1 MiB a bus. There is room for 256 buses. */
export const PCI_ECAM_GPA = 0xe000_0000;
export const PCI_ECAM_LENGTH = 1 * MIB;
export const IO_APIC_GPA = 0xfec0_0000;
export const LOCAL_APIC_GPA = 0xfee0_0000;
/** Intel only: page for the identity map that VT-x needs for real mode. */
export const KVM_IDENTITY_MAP_GPA = 0xfffb_c000;
/** Intel only: three pages for KVM_SET_TSS_ADDR. */
export const KVM_TSS_GPA = 0xfffb_d000;

// == RAM above 4 GiB: what does not fit below the hole =========================

export const HIGH_MEMORY_GPA = 0x1_0000_0000;

// == PCI above RAM: what base address registers of 64 bits may be set to =======

/** Processors with 36 address bits reach all of it, unless there is very much RAM. */
export const PCI_HIGH_WINDOW_LENGTH = 32 * GIB;
const PCI_HIGH_WINDOW_ALIGNMENT = 8 * GIB;

/** Where it begins, with so many bytes of RAM. */
export function pciHighWindowGpa(memorySize: number): number {
  const end = HIGH_MEMORY_GPA + Math.max(0, memorySize - MMIO_HOLE_GPA);
  return Math.ceil(end / PCI_HIGH_WINDOW_ALIGNMENT) * PCI_HIGH_WINDOW_ALIGNMENT;
}

// == Ports =====================================================================

export const I8042_DATA_PORT = 0x60;
export const I8042_COMMAND_PORT = 0x64;
export const RTC_INDEX_PORT = 0x70;
export const RTC_DATA_PORT = 0x71;
export const SERIAL0_PORT = 0x3f8;
export const SERIAL_LENGTH = 8;
/** ACPI PM1a event block: status (2 bytes), enable (2 bytes). */
export const ACPI_PM1A_EVT_PORT = 0x600;
/** ACPI PM1a control block: SLP_TYP and SLP_EN (2 bytes). */
export const ACPI_PM1A_CNT_PORT = 0x604;
/** ACPI reset register (1 byte). */
export const ACPI_RESET_PORT = 0x606;
/** ACPI power-management timer, 3.579545 MHz, 32 bits. */
export const ACPI_PM_TIMER_PORT = 0x608;
/** ACPI general-purpose event block: status (1 byte), enable (1 byte). */
export const ACPI_GPE0_PORT = 0x60c;
/** PCI configuration mechanism 1: address (4 bytes), data (4 bytes). */
export const PCI_CONFIG_PORT = 0xcf8;

// == Interrupts (GSI) ==========================================================

export const KEYBOARD_GSI = 1;
export const SERIAL0_GSI = 4;
export const RTC_GSI = 8;
export const ACPI_SCI_GSI = 9;
/** Inputs of the I/O APIC. */
export const GSI_COUNT = 24;
/**
 * Lines left to virtio devices, in the order in which they are given out: first those that a kernel without the
 * I/O APIC (`noapic`) has too, because no device of a PC is here that would use them.
 */
export const VIRTIO_GSIS: readonly number[] = [5, 6, 7, 10, 11, 12, 3, 14, 15, 16, 17, 18, 19, 20];

/** Lines that devices on a PCI bus share (INTx): as on PCs, those that no ISA device has. No virtio device is on one then. */
const PCI_GSI_FIRST = 16;
const PCI_GSI_COUNT = 8;

/** The line behind pin INTA# of a device of bus 0. */
export function pciGsi(device: number): number {
  return PCI_GSI_FIRST + (device % PCI_GSI_COUNT);
}
