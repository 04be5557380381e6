// Assigned devices by their groups: a container is one set of translations, that of a guest's RAM, for all groups in it.
// Documentation/driver-api/vfio.rst, "VFIO Usage Example".
import { closeSync } from "node:fs";
import { HostError } from "../../errors.js";
import type { MemoryRegion } from "../../memory/guest-memory.js";
import { ioctl, ioctlStruct } from "../../sys/ioctl-calls.js";
import {
  SIZEOF_VFIO_GROUP_STATUS,
  SIZEOF_VFIO_IOMMU_TYPE1_DMA_MAP,
  SIZEOF_VFIO_IOMMU_TYPE1_DMA_UNMAP,
  vfio_group_status,
  vfio_iommu_type1_dma_map,
  vfio_iommu_type1_dma_unmap,
  VFIO_API_VERSION,
  VFIO_CHECK_EXTENSION,
  VFIO_DMA_MAP_FLAG_READ,
  VFIO_DMA_MAP_FLAG_WRITE,
  VFIO_GET_API_VERSION,
  VFIO_GROUP_FLAGS_VIABLE,
  VFIO_GROUP_GET_DEVICE_FD,
  VFIO_GROUP_GET_STATUS,
  VFIO_GROUP_SET_CONTAINER,
  VFIO_IOMMU_MAP_DMA,
  VFIO_IOMMU_UNMAP_DMA,
  VFIO_SET_IOMMU,
  VFIO_TYPE1v2_IOMMU,
} from "../../sys/vfio-abi.js";
import { closedOnError, notPinned, openNode, refusedDevice, type DmaSpace } from "./dma-space.js";
import { CONTAINER } from "./host-devices.js";
import { structure } from "./structure.js";

export class VfioContainer implements DmaSpace {
  readonly #fd: number;
  /** By number. */
  readonly #groups = new Map<string, number>();
  readonly #mapped: MemoryRegion[] = [];

  private constructor(fd: number) {
    this.#fd = fd;
  }

  /** Throws HostError. */
  static open(): VfioContainer {
    const fd = openNode(CONTAINER, "load the module: modprobe vfio-pci");
    return closedOnError(fd, () => {
      if (ioctl(fd, "VFIO_GET_API_VERSION", VFIO_GET_API_VERSION) !== VFIO_API_VERSION) {
        throw new HostError(`${CONTAINER}: another version of VFIO than ${String(VFIO_API_VERSION)}`);
      }
      if (ioctl(fd, "VFIO_CHECK_EXTENSION", VFIO_CHECK_EXTENSION, VFIO_TYPE1v2_IOMMU) === 0) {
        throw new HostError(`${CONTAINER}: this kernel's VFIO has no type 1 IOMMU`, {
          cure: "load the module: modprobe vfio_iommu_type1",
        });
      }
      return new VfioContainer(fd);
    });
  }

  openDevice(group: string, address: string): number {
    const fd = this.#groups.get(group) ?? this.#openGroup(group, address);
    try {
      return ioctlStruct(fd, "VFIO_GROUP_GET_DEVICE_FD", VFIO_GROUP_GET_DEVICE_FD, Buffer.from(`${address}\0`));
    } catch (error) {
      throw refusedDevice(address, "this host's kernel does not hand it over", error);
    }
  }

  #openGroup(group: string, address: string): number {
    const fd = openNode(`/dev/vfio/${group}`, `give ${address} to vfio-pci: vmlet doctor --passthrough says how`);
    closedOnError(fd, () => {
      const status = structure(SIZEOF_VFIO_GROUP_STATUS);
      ioctlStruct(fd, "VFIO_GROUP_GET_STATUS", VFIO_GROUP_GET_STATUS, status);
      if ((status.getUint32(vfio_group_status.flags, true) & VFIO_GROUP_FLAGS_VIABLE) === 0) {
        throw new HostError(
          `Assigned device ${address}: a driver of this host has a device of its IOMMU group ${group}`,
          {
            cure: "vmlet doctor --passthrough says which",
          },
        );
      }
      try {
        ioctlStruct(fd, "VFIO_GROUP_SET_CONTAINER", VFIO_GROUP_SET_CONTAINER, new Int32Array([this.#fd]));
        if (this.#groups.size === 0) ioctl(this.#fd, "VFIO_SET_IOMMU", VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU);
      } catch (error) {
        throw refusedDevice(address, `IOMMU group ${group} cannot be used`, error);
      }
    });
    this.#groups.set(group, fd);
    return fd;
  }

  map(regions: readonly MemoryRegion[]): void {
    for (const region of regions) {
      const argument = structure(SIZEOF_VFIO_IOMMU_TYPE1_DMA_MAP);
      argument.setUint32(vfio_iommu_type1_dma_map.flags, VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE, true);
      argument.setBigUint64(vfio_iommu_type1_dma_map.vaddr, BigInt(region.hva), true);
      argument.setBigUint64(vfio_iommu_type1_dma_map.iova, BigInt(region.gpa), true);
      argument.setBigUint64(vfio_iommu_type1_dma_map.size, BigInt(region.size), true);
      try {
        ioctlStruct(this.#fd, "VFIO_IOMMU_MAP_DMA", VFIO_IOMMU_MAP_DMA, argument);
      } catch (error) {
        throw notPinned(region, error);
      }
      this.#mapped.push(region);
    }
  }

  unmap(): void {
    for (const region of this.#mapped.splice(0)) {
      const argument = structure(SIZEOF_VFIO_IOMMU_TYPE1_DMA_UNMAP);
      argument.setBigUint64(vfio_iommu_type1_dma_unmap.iova, BigInt(region.gpa), true);
      argument.setBigUint64(vfio_iommu_type1_dma_unmap.size, BigInt(region.size), true);
      ioctlStruct(this.#fd, "VFIO_IOMMU_UNMAP_DMA", VFIO_IOMMU_UNMAP_DMA, argument);
    }
  }

  close(): void {
    for (const fd of this.#groups.values()) closeSync(fd);
    this.#groups.clear();
    closeSync(this.#fd);
  }
}
