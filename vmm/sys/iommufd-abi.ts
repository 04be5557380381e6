// The user-space ABI of the host kernel's iommufd (Linux 6.2) and of VFIO's devices behind it (Linux 6.6), as vfio-abi.ts, from
// <linux/iommufd.h> and <linux/vfio.h>. Each structure begins with its own size. Headers older than that are no judge of it:
// test/unit/kvm-abi.test.ts compares what the compiler knows.
import { IO } from "./ioctl.js";

const IOMMUFD_TYPE = 0x3b;
const VFIO = 0x3b;

export const SIZEOF_IOMMU_IOAS_ALLOC = 12;
export const iommu_ioas_alloc = { size: 0, flags: 4, out_ioas_id: 8 } as const;
export const IOMMU_IOAS_ALLOC = IO(IOMMUFD_TYPE, 0x81);

export const SIZEOF_IOMMU_IOAS_MAP = 40;
export const iommu_ioas_map = { size: 0, flags: 4, ioas_id: 8, user_va: 16, length: 24, iova: 32 } as const;
export const IOMMU_IOAS_MAP_FIXED_IOVA = 1 << 0;
export const IOMMU_IOAS_MAP_WRITEABLE = 1 << 1;
export const IOMMU_IOAS_MAP_READABLE = 1 << 2;
export const IOMMU_IOAS_MAP = IO(IOMMUFD_TYPE, 0x85);

export const SIZEOF_IOMMU_IOAS_UNMAP = 24;
export const iommu_ioas_unmap = { size: 0, ioas_id: 4, iova: 8, length: 16 } as const;
export const IOMMU_IOAS_UNMAP = IO(IOMMUFD_TYPE, 0x86);

export const SIZEOF_VFIO_DEVICE_BIND_IOMMUFD = 16;
export const vfio_device_bind_iommufd = { argsz: 0, flags: 4, iommufd: 8, out_devid: 12 } as const;
export const VFIO_DEVICE_BIND_IOMMUFD = IO(VFIO, 118);

/** What the first kernels with it know: newer ones have more behind it. */
export const SIZEOF_VFIO_DEVICE_ATTACH_IOMMUFD_PT = 12;
export const vfio_device_attach_iommufd_pt = { argsz: 0, flags: 4, pt_id: 8 } as const;
export const VFIO_DEVICE_ATTACH_IOMMUFD_PT = IO(VFIO, 119);
