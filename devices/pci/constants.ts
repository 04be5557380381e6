// Numbers of PCI Local Bus 3.0 and PCI Express Base 5.0, by their names in Linux's pci_regs.h.

// == §6.1 configuration space header, type 0 ===================================

export const PCI_VENDOR_ID = 0x00;
export const PCI_DEVICE_ID = 0x02;
export const PCI_COMMAND = 0x04;
export const PCI_STATUS = 0x06;
export const PCI_REVISION_ID = 0x08;
export const PCI_HEADER_TYPE = 0x0e;
export const PCI_BASE_ADDRESS_0 = 0x10;
export const PCI_SUBSYSTEM_VENDOR_ID = 0x2c;
export const PCI_SUBSYSTEM_ID = 0x2e;
export const PCI_CAPABILITY_LIST = 0x34;
export const PCI_INTERRUPT_LINE = 0x3c;
export const PCI_INTERRUPT_PIN = 0x3d;
/** Where the header ends. */
export const PCI_STD_HEADER_SIZEOF = 0x40;

export const PCI_COMMAND_MEMORY = 1 << 1;
export const PCI_COMMAND_MASTER = 1 << 2;
export const PCI_COMMAND_INTX_DISABLE = 1 << 10;
/** The device asks for its interrupt, by its pin. */
export const PCI_STATUS_INTERRUPT = 1 << 3;
export const PCI_STATUS_CAP_LIST = 1 << 4;

/** The header of a device, without the bit that says there are more functions. */
export const PCI_HEADER_TYPE_MASK = 0x7f;
export const PCI_HEADER_TYPE_NORMAL = 0;

export const PCI_BASE_ADDRESS_SPACE_IO = 1;
export const PCI_BASE_ADDRESS_MEM_TYPE_MASK = 3 << 1;
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

export const PCI_CAP_ID_PM = 0x01;
export const PCI_CAP_ID_MSI = 0x05;
export const PCI_CAP_ID_VNDR = 0x09;
export const PCI_CAP_ID_EXP = 0x10;
export const PCI_CAP_ID_MSIX = 0x11;

/** Message control of MSI, from the capability's start (§6.8.1). */
export const PCI_MSI_FLAGS = 2;
export const PCI_MSI_FLAGS_ENABLE = 1 << 0;
/** Vectors that the device has, and those that it may use: each a power of two, by its exponent. */
export const PCI_MSI_FLAGS_QMASK = 7 << 1;
export const PCI_MSI_FLAGS_QSIZE = 7 << 4;
export const PCI_MSI_FLAGS_64BIT = 1 << 7;
export const PCI_MSI_ADDRESS_LO = 4;
export const PCI_MSI_ADDRESS_HI = 8;
/** The message's data, where the address has 32 bits, and where it has 64. */
export const PCI_MSI_DATA_32 = 8;
export const PCI_MSI_DATA_64 = 12;
/** Without masks of vectors. */
export const PCI_MSI_SIZEOF_32 = 10;
export const PCI_MSI_SIZEOF_64 = 14;

/** Message control of MSI-X, from the capability's start. */
export const PCI_MSIX_FLAGS = 2;
/** Vectors, less one. */
export const PCI_MSIX_FLAGS_QSIZE = 0x7ff;
export const PCI_MSIX_FLAGS_MASKALL = 1 << 14;
export const PCI_MSIX_FLAGS_ENABLE = 1 << 15;
export const PCI_MSIX_TABLE = 4;
export const PCI_MSIX_PBA = 8;
/** Of both: which base address register's range, below the offset. */
export const PCI_MSIX_TABLE_BIR = 7;
export const PCI_CAP_MSIX_SIZEOF = 12;

/** Power management, from the capability's start (PCI Bus Power Management 1.2 §3.2). */
export const PCI_PM_CTRL = 4;
export const PCI_PM_CTRL_STATE_MASK = 3;
export const PCI_PM_CTRL_NO_SOFT_RESET = 1 << 3;
export const PCI_PM_SIZEOF = 8;

/** PCI Express, from the capability's start (PCI Express Base 5.0 §7.5.3). */
export const PCI_EXP_FLAGS = 2;
export const PCI_EXP_FLAGS_VERS = 0xf;
export const PCI_EXP_TYPE_RC_END = 0x9;
export const PCI_EXP_DEVCAP = 4;
export const PCI_EXP_DEVCAP_FLR = 1 << 28;
export const PCI_EXP_DEVCTL = 8;
export const PCI_EXP_DEVCTL_BCR_FLR = 1 << 15;
export const PCI_EXP_DEVCAP2 = 0x24;
export const PCI_EXP_DEVCTL2 = 0x28;
export const PCI_EXP_SIZEOF_V1 = 0x14;
export const PCI_EXP_SIZEOF_V2 = 0x3c;

export const PCI_MSIX_ENTRY_SIZE = 16;
export const PCI_MSIX_ENTRY_CTRL_MASKBIT = 1;
