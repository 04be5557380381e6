// Which parts of an assigned device's regions a guest may reach without an exit: what the host's kernel lets us map, less the pages
// that the monitor answers itself. linux/vfio.h, "VFIO_DEVICE_GET_REGION_INFO".
import { PAGE_SIZE } from "../../memory/layout.js";
import {
  SIZEOF_VFIO_INFO_CAP_HEADER,
  SIZEOF_VFIO_REGION_INFO,
  SIZEOF_VFIO_REGION_SPARSE_MMAP_AREA,
  vfio_info_cap_header,
  vfio_region_info,
  vfio_region_info_cap_sparse_mmap,
  vfio_region_sparse_mmap_area,
  VFIO_REGION_INFO_CAP_SPARSE_MMAP,
  VFIO_REGION_INFO_FLAG_CAPS,
  VFIO_REGION_INFO_FLAG_MMAP,
} from "../../sys/vfio-abi.js";

/** From a region's start, `bytes`. */
export interface Span {
  readonly offset: number;
  readonly length: number;
}

export interface RegionInfo {
  /** `bytes`; 0 for one that is not there. */
  readonly size: number;
  /** Where it begins in the device's descriptor. */
  readonly position: number;
  /** What can be mapped. */
  readonly mappable: readonly Span[];
}

/** More would be a kernel's mistake. */
const MAX_CAPABILITIES = 16;
const MAX_AREAS = 64;

/** `info`: struct vfio_region_info as the kernel has filled it, with its capabilities. */
export function readRegionInfo(info: DataView): RegionInfo {
  const flags = info.getUint32(vfio_region_info.flags, true);
  const size = Number(info.getBigUint64(vfio_region_info.size, true));
  const position = Number(info.getBigUint64(vfio_region_info.offset, true));
  if ((flags & VFIO_REGION_INFO_FLAG_MMAP) === 0 || size === 0) return { size, position, mappable: [] };
  const sparse = (flags & VFIO_REGION_INFO_FLAG_CAPS) === 0 ? undefined : sparseAreas(info, size);
  return { size, position, mappable: wholePages(sparse ?? [{ offset: 0, length: size }]) };
}

/** Undefined if there is no such capability. */
function sparseAreas(info: DataView, size: number): Span[] | undefined {
  let at = info.getUint32(vfio_region_info.cap_offset, true);
  for (let count = 0; at !== 0 && count < MAX_CAPABILITIES; count++) {
    if (at < SIZEOF_VFIO_REGION_INFO || at + SIZEOF_VFIO_INFO_CAP_HEADER > info.byteLength) return [];
    if (info.getUint16(at + vfio_info_cap_header.id, true) === VFIO_REGION_INFO_CAP_SPARSE_MMAP) {
      if (at + vfio_region_info_cap_sparse_mmap.areas > info.byteLength) return [];
      const areas = Math.min(info.getUint32(at + vfio_region_info_cap_sparse_mmap.nr_areas, true), MAX_AREAS);
      const first = at + vfio_region_info_cap_sparse_mmap.areas;
      return Array.from({ length: areas }, (_, index) => first + index * SIZEOF_VFIO_REGION_SPARSE_MMAP_AREA)
        .filter((area) => area + SIZEOF_VFIO_REGION_SPARSE_MMAP_AREA <= info.byteLength)
        .map((area) => ({
          offset: Number(info.getBigUint64(area + vfio_region_sparse_mmap_area.offset, true)),
          length: Number(info.getBigUint64(area + vfio_region_sparse_mmap_area.size, true)),
        }))
        .filter(({ offset, length }) => offset + length <= size);
    }
    at = info.getUint32(at + vfio_info_cap_header.next, true);
  }
  return undefined;
}

function wholePages(spans: readonly Span[]): Span[] {
  return spans
    .map(({ offset, length }) => {
      const start = Math.ceil(offset / PAGE_SIZE) * PAGE_SIZE;
      return { offset: start, length: Math.floor((offset + length) / PAGE_SIZE) * PAGE_SIZE - start };
    })
    .filter(({ length }) => length > 0);
}

/** The spans without the pages in which one of the others lies. */
export function without(spans: readonly Span[], trapped: readonly Span[]): Span[] {
  return trapped.reduce<Span[]>(
    (left, { offset, length }) => {
      if (length === 0) return left;
      const start = Math.floor(offset / PAGE_SIZE) * PAGE_SIZE;
      const end = Math.ceil((offset + length) / PAGE_SIZE) * PAGE_SIZE;
      return left.flatMap((span) => {
        const spanEnd = span.offset + span.length;
        return [
          { offset: span.offset, length: Math.min(start, spanEnd) - span.offset },
          { offset: Math.max(end, span.offset), length: spanEnd - Math.max(end, span.offset) },
        ].filter((part) => part.length > 0);
      });
    },
    [...spans],
  );
}
