// Numbers of virtio over PCI, by their names in Linux's virtio_pci.h. virtio 1.2 §4.1.

export const PCI_VENDOR_ID_REDHAT_QUMRANET = 0x1af4;
/** Added to the kind of device (§4.1.2.1). */
export const VIRTIO_PCI_DEVICE_ID_BASE = 0x1040;

// == §4.1.4 capabilities =======================================================

export const VIRTIO_PCI_CAP_COMMON_CFG = 1;
export const VIRTIO_PCI_CAP_NOTIFY_CFG = 2;
export const VIRTIO_PCI_CAP_ISR_CFG = 3;
export const VIRTIO_PCI_CAP_DEVICE_CFG = 4;
export const VIRTIO_PCI_CAP_PCI_CFG = 5;

/** Length of struct virtio_pci_cap. */
export const VIRTIO_PCI_CAP_SIZEOF = 16;
// Fields of it, from its start.
export const VIRTIO_PCI_CAP_BAR = 4;
export const VIRTIO_PCI_CAP_OFFSET = 8;
export const VIRTIO_PCI_CAP_LENGTH = 12;
/** struct virtio_pci_cfg_cap: the window. */
export const VIRTIO_PCI_CFG_DATA = 16;

// == §4.1.4.3 struct virtio_pci_common_cfg =====================================

export const VIRTIO_PCI_COMMON_DFSELECT = 0;
export const VIRTIO_PCI_COMMON_DF = 4;
export const VIRTIO_PCI_COMMON_GFSELECT = 8;
export const VIRTIO_PCI_COMMON_GF = 12;
export const VIRTIO_PCI_COMMON_MSIX = 16;
export const VIRTIO_PCI_COMMON_NUMQ = 18;
export const VIRTIO_PCI_COMMON_STATUS = 20;
export const VIRTIO_PCI_COMMON_CFGGENERATION = 21;
export const VIRTIO_PCI_COMMON_Q_SELECT = 22;
export const VIRTIO_PCI_COMMON_Q_SIZE = 24;
export const VIRTIO_PCI_COMMON_Q_MSIX = 26;
export const VIRTIO_PCI_COMMON_Q_ENABLE = 28;
export const VIRTIO_PCI_COMMON_Q_NOFF = 30;
export const VIRTIO_PCI_COMMON_Q_DESCLO = 32;
export const VIRTIO_PCI_COMMON_Q_DESCHI = 36;
export const VIRTIO_PCI_COMMON_Q_AVAILLO = 40;
export const VIRTIO_PCI_COMMON_Q_AVAILHI = 44;
export const VIRTIO_PCI_COMMON_Q_USEDLO = 48;
export const VIRTIO_PCI_COMMON_Q_USEDHI = 52;
export const VIRTIO_PCI_COMMON_LENGTH = 56;

export const VIRTIO_MSI_NO_VECTOR = 0xffff;

// == §4.1.4.5 ISR status =======================================================

export const VIRTIO_PCI_ISR_QUEUE = 1 << 0;
export const VIRTIO_PCI_ISR_CONFIG = 1 << 1;
