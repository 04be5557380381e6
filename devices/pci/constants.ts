// Numbers of PCI Local Bus 3.0 and PCI Express Base 5.0, by their names in Linux's pci_regs.h.

// == §6.1 configuration space header, type 0 ===================================

export const PCI_VENDOR_ID = 0x00;
export const PCI_DEVICE_ID = 0x02;
export const PCI_COMMAND = 0x04;
export const PCI_STATUS = 0x06;
export const PCI_REVISION_ID = 0x08;
export const PCI_BASE_ADDRESS_0 = 0x10;
export const PCI_SUBSYSTEM_VENDOR_ID = 0x2c;
export const PCI_SUBSYSTEM_ID = 0x2e;
export const PCI_CAPABILITY_LIST = 0x34;
export const PCI_INTERRUPT_LINE = 0x3c;
/** Where the header ends. */
export const PCI_STD_HEADER_SIZEOF = 0x40;

export const PCI_COMMAND_MEMORY = 1 << 1;
export const PCI_COMMAND_MASTER = 1 << 2;
export const PCI_COMMAND_INTX_DISABLE = 1 << 10;
export const PCI_STATUS_CAP_LIST = 1 << 4;

export const PCI_BASE_ADDRESS_MEM_TYPE_64 = 1 << 2;
export const PCI_BASE_ADDRESS_MEM_PREFETCH = 1 << 3;
export const PCI_STD_NUM_BARS = 6;

// == Sizes =====================================================================

/** What configuration mechanism 1 reaches. */
export const PCI_CFG_SPACE_SIZE = 256;
/** What ECAM reaches, for each function. */
export const PCI_CFG_SPACE_EXP_SIZE = 4096;
export const PCI_DEVICES = 32;
export const PCI_FUNCTIONS = 8;

// == §6.7, §6.8 capabilities ===================================================

export const PCI_CAP_ID_VNDR = 0x09;
export const PCI_CAP_ID_MSIX = 0x11;

/** Message control of MSI-X, from the capability's start. */
export const PCI_MSIX_FLAGS = 2;
export const PCI_MSIX_FLAGS_MASKALL = 1 << 14;
export const PCI_MSIX_FLAGS_ENABLE = 1 << 15;
export const PCI_MSIX_TABLE = 4;
export const PCI_MSIX_PBA = 8;
export const PCI_CAP_MSIX_SIZEOF = 12;

export const PCI_MSIX_ENTRY_SIZE = 16;
export const PCI_MSIX_ENTRY_CTRL_MASKBIT = 1;
