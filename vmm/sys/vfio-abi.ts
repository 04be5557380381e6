// The user-space ABI of the host kernel's VFIO, in the order of <linux/vfio.h>: structure sizes (SIZEOF_*), field offsets (one
// object a structure), flags, requests. Requests encode no size: each structure begins with its own.
// test/unit/kvm-abi.test.ts compares every value with a C compiler's.
import { IO } from "./ioctl.js";

const VFIO = 0x3b;

export const VFIO_API_VERSION = 0;
export const VFIO_TYPE1v2_IOMMU = 3;

export const VFIO_GET_API_VERSION = IO(VFIO, 100);
export const VFIO_CHECK_EXTENSION = IO(VFIO, 101);
export const VFIO_SET_IOMMU = IO(VFIO, 102);

export const SIZEOF_VFIO_GROUP_STATUS = 8;
export const vfio_group_status = { argsz: 0, flags: 4 } as const;
export const VFIO_GROUP_FLAGS_VIABLE = 1 << 0;

export const VFIO_GROUP_GET_STATUS = IO(VFIO, 103);
export const VFIO_GROUP_SET_CONTAINER = IO(VFIO, 104);
export const VFIO_GROUP_GET_DEVICE_FD = IO(VFIO, 106);

export const vfio_device_info = { argsz: 0, flags: 4, num_regions: 8, num_irqs: 12 } as const;
export const VFIO_DEVICE_FLAGS_RESET = 1 << 0;
export const VFIO_DEVICE_FLAGS_PCI = 1 << 1;

export const VFIO_DEVICE_GET_INFO = IO(VFIO, 107);

export const SIZEOF_VFIO_REGION_INFO = 32;
export const vfio_region_info = { argsz: 0, flags: 4, index: 8, cap_offset: 12, size: 16, offset: 24 } as const;
export const VFIO_REGION_INFO_FLAG_MMAP = 1 << 2;
export const VFIO_REGION_INFO_FLAG_CAPS = 1 << 3;

export const SIZEOF_VFIO_INFO_CAP_HEADER = 8;
export const vfio_info_cap_header = { id: 0, version: 2, next: 4 } as const;
export const VFIO_REGION_INFO_CAP_SPARSE_MMAP = 1;

export const SIZEOF_VFIO_REGION_SPARSE_MMAP_AREA = 16;
export const vfio_region_sparse_mmap_area = { offset: 0, size: 8 } as const;
export const vfio_region_info_cap_sparse_mmap = { nr_areas: 8, areas: 16 } as const;

export const VFIO_DEVICE_GET_REGION_INFO = IO(VFIO, 108);

export const SIZEOF_VFIO_IRQ_INFO = 16;
export const vfio_irq_info = { argsz: 0, flags: 4, index: 8, count: 12 } as const;
export const VFIO_IRQ_INFO_EVENTFD = 1 << 0;
export const VFIO_IRQ_INFO_AUTOMASKED = 1 << 2;

export const VFIO_DEVICE_GET_IRQ_INFO = IO(VFIO, 109);

/** Without its data, which follow it. */
export const SIZEOF_VFIO_IRQ_SET = 20;
export const vfio_irq_set = { argsz: 0, flags: 4, index: 8, start: 12, count: 16 } as const;
export const VFIO_IRQ_SET_DATA_NONE = 1 << 0;
export const VFIO_IRQ_SET_DATA_EVENTFD = 1 << 2;
export const VFIO_IRQ_SET_ACTION_UNMASK = 1 << 4;
export const VFIO_IRQ_SET_ACTION_TRIGGER = 1 << 5;

export const VFIO_DEVICE_SET_IRQS = IO(VFIO, 110);
export const VFIO_DEVICE_RESET = IO(VFIO, 111);

/** Those of base address registers are 0 to 5. */
export const VFIO_PCI_CONFIG_REGION_INDEX = 7;
export const VFIO_PCI_INTX_IRQ_INDEX = 0;
export const VFIO_PCI_MSI_IRQ_INDEX = 1;
export const VFIO_PCI_MSIX_IRQ_INDEX = 2;
export const VFIO_PCI_ERR_IRQ_INDEX = 3;
export const VFIO_PCI_REQ_IRQ_INDEX = 4;

export const SIZEOF_VFIO_IOMMU_TYPE1_DMA_MAP = 32;
export const vfio_iommu_type1_dma_map = { argsz: 0, flags: 4, vaddr: 8, iova: 16, size: 24 } as const;
export const VFIO_DMA_MAP_FLAG_READ = 1 << 0;
export const VFIO_DMA_MAP_FLAG_WRITE = 1 << 1;

export const VFIO_IOMMU_MAP_DMA = IO(VFIO, 113);

export const SIZEOF_VFIO_IOMMU_TYPE1_DMA_UNMAP = 24;
export const vfio_iommu_type1_dma_unmap = { argsz: 0, flags: 4, iova: 8, size: 16 } as const;

export const VFIO_IOMMU_UNMAP_DMA = IO(VFIO, 114);
