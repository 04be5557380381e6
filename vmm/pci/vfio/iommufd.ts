// Assigned devices by iommufd: one address space, that of a guest's RAM, and each device by a descriptor of its own, without its
// group. Documentation/userspace-api/iommufd.rst; Documentation/driver-api/vfio.rst, "IOMMUFD and vfio_iommu_type1".
import { accessSync, closeSync, constants, existsSync } from "node:fs";
import type { MemoryRegion } from "../../memory/guest-memory.js";
import { EBUSY, EINVAL } from "../../sys/errno.js";
import { ioctlStruct } from "../../sys/ioctl-calls.js";
import {
  iommu_ioas_alloc,
  iommu_ioas_map,
  iommu_ioas_unmap,
  IOMMU_IOAS_ALLOC,
  IOMMU_IOAS_MAP,
  IOMMU_IOAS_MAP_FIXED_IOVA,
  IOMMU_IOAS_MAP_READABLE,
  IOMMU_IOAS_MAP_WRITEABLE,
  IOMMU_IOAS_UNMAP,
  SIZEOF_IOMMU_IOAS_ALLOC,
  SIZEOF_IOMMU_IOAS_MAP,
  SIZEOF_IOMMU_IOAS_UNMAP,
  SIZEOF_VFIO_DEVICE_ATTACH_IOMMUFD_PT,
  SIZEOF_VFIO_DEVICE_BIND_IOMMUFD,
  vfio_device_attach_iommufd_pt,
  vfio_device_bind_iommufd,
  VFIO_DEVICE_ATTACH_IOMMUFD_PT,
  VFIO_DEVICE_BIND_IOMMUFD,
} from "../../sys/iommufd-abi.js";
import { closedOnError, notPinned, openNode, refusedDevice, type DmaSpace } from "./dma-space.js";
import { CONTAINER, deviceNode, IOMMUFD } from "./host-devices.js";
import { structure } from "./structure.js";

const FLAGS = IOMMU_IOAS_MAP_FIXED_IOVA | IOMMU_IOAS_MAP_WRITEABLE | IOMMU_IOAS_MAP_READABLE;

export class IommufdSpace implements DmaSpace {
  readonly #fd: number;
  /** Of the address space. */
  readonly #id: number;
  readonly #mapped: MemoryRegion[] = [];

  private constructor(fd: number) {
    this.#fd = fd;
    const argument = structure(SIZEOF_IOMMU_IOAS_ALLOC);
    ioctlStruct(fd, "IOMMU_IOAS_ALLOC", IOMMU_IOAS_ALLOC, argument);
    this.#id = argument.getUint32(iommu_ioas_alloc.out_ioas_id, true);
  }

  /** The host has it for all of the devices, and this user may open them, or would find no groups either. */
  static isFor(addresses: readonly string[]): boolean {
    const nodes = [IOMMUFD, ...addresses.map((address) => deviceNode(address))];
    return nodes.every((node) => node !== undefined && (mayOpen(node) || (existsSync(node) && !existsSync(CONTAINER))));
  }

  /** Throws HostError. */
  static open(): IommufdSpace {
    const fd = openNode(IOMMUFD, "load the module: modprobe iommufd");
    return closedOnError(fd, () => new IommufdSpace(fd));
  }

  openDevice(_group: string, address: string): number {
    const helps = `give ${address} to vfio-pci: vmlet doctor --passthrough says how`;
    const fd = openNode(deviceNode(address) ?? "/dev/vfio/devices", helps);
    return closedOnError(fd, () => {
      try {
        const bind = structure(SIZEOF_VFIO_DEVICE_BIND_IOMMUFD);
        bind.setInt32(vfio_device_bind_iommufd.iommufd, this.#fd, true);
        ioctlStruct(fd, "VFIO_DEVICE_BIND_IOMMUFD", VFIO_DEVICE_BIND_IOMMUFD, bind);
        const attach = structure(SIZEOF_VFIO_DEVICE_ATTACH_IOMMUFD_PT);
        attach.setUint32(vfio_device_attach_iommufd_pt.pt_id, this.#id, true);
        ioctlStruct(fd, "VFIO_DEVICE_ATTACH_IOMMUFD_PT", VFIO_DEVICE_ATTACH_IOMMUFD_PT, attach);
      } catch (error) {
        // EINVAL: somebody has it open.
        throw refusedDevice(address, "this host's kernel does not hand it over", error, [EBUSY, EINVAL]);
      }
      return fd;
    });
  }

  map(regions: readonly MemoryRegion[]): void {
    for (const region of regions) {
      const argument = structure(SIZEOF_IOMMU_IOAS_MAP);
      argument.setUint32(iommu_ioas_map.flags, FLAGS, true);
      argument.setUint32(iommu_ioas_map.ioas_id, this.#id, true);
      argument.setBigUint64(iommu_ioas_map.user_va, BigInt(region.hva), true);
      argument.setBigUint64(iommu_ioas_map.length, BigInt(region.size), true);
      argument.setBigUint64(iommu_ioas_map.iova, BigInt(region.gpa), true);
      try {
        ioctlStruct(this.#fd, "IOMMU_IOAS_MAP", IOMMU_IOAS_MAP, argument);
      } catch (error) {
        throw notPinned(region, error);
      }
      this.#mapped.push(region);
    }
  }

  unmap(): void {
    for (const region of this.#mapped.splice(0)) {
      const argument = structure(SIZEOF_IOMMU_IOAS_UNMAP);
      argument.setUint32(iommu_ioas_unmap.ioas_id, this.#id, true);
      argument.setBigUint64(iommu_ioas_unmap.iova, BigInt(region.gpa), true);
      argument.setBigUint64(iommu_ioas_unmap.length, BigInt(region.size), true);
      ioctlStruct(this.#fd, "IOMMU_IOAS_UNMAP", IOMMU_IOAS_UNMAP, argument);
    }
  }

  close(): void {
    closeSync(this.#fd);
  }
}

function mayOpen(path: string): boolean {
  try {
    accessSync(path, constants.R_OK | constants.W_OK);
    return true;
  } catch {
    return false;
  }
}
