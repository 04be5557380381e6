// struct virtio_blk_config, of one backend: the size changes only with that. virtio 1.2 §5.2.4.
import { ConfigSpace } from "../config-space.js";
import {
  SECTOR_SIZE,
  VIRTIO_BLK_CONFIG_BLK_SIZE,
  VIRTIO_BLK_CONFIG_CAPACITY,
  VIRTIO_BLK_CONFIG_DISCARD_SECTOR_ALIGNMENT,
  VIRTIO_BLK_CONFIG_LENGTH,
  VIRTIO_BLK_CONFIG_MAX_DISCARD_SECTORS,
  VIRTIO_BLK_CONFIG_MAX_DISCARD_SEG,
  VIRTIO_BLK_CONFIG_MAX_WRITE_ZEROES_SECTORS,
  VIRTIO_BLK_CONFIG_MAX_WRITE_ZEROES_SEG,
  VIRTIO_BLK_CONFIG_MIN_IO_SIZE,
  VIRTIO_BLK_CONFIG_PHYSICAL_BLOCK_EXP,
  VIRTIO_BLK_CONFIG_SEG_MAX,
  VIRTIO_BLK_CONFIG_SIZE_MAX,
  VIRTIO_BLK_CONFIG_WRITE_ZEROES_MAY_UNMAP,
} from "./constants.js";
import { BLOCK_LIMITS } from "./limits.js";

/** The page cache's unit in `bytes`: told to the guest so that its file system aligns to it. */
const PHYSICAL_BLOCK_SIZE = 4096;

/** `size` and `blockSize` in `bytes`. */
export function blockConfig(size: number, blockSize: number): ConfigSpace {
  const blocks = PHYSICAL_BLOCK_SIZE / blockSize;
  const config = new ConfigSpace(VIRTIO_BLK_CONFIG_LENGTH);
  config.setU64(VIRTIO_BLK_CONFIG_CAPACITY, size / SECTOR_SIZE);
  config.setU32(VIRTIO_BLK_CONFIG_SIZE_MAX, BLOCK_LIMITS.segmentBytes);
  config.setU32(VIRTIO_BLK_CONFIG_SEG_MAX, BLOCK_LIMITS.segments);
  config.setU32(VIRTIO_BLK_CONFIG_BLK_SIZE, blockSize);
  config.setU8(VIRTIO_BLK_CONFIG_PHYSICAL_BLOCK_EXP, Math.log2(blocks));
  config.setU16(VIRTIO_BLK_CONFIG_MIN_IO_SIZE, blocks);
  config.setU32(VIRTIO_BLK_CONFIG_MAX_DISCARD_SECTORS, BLOCK_LIMITS.discardSectors);
  config.setU32(VIRTIO_BLK_CONFIG_MAX_DISCARD_SEG, BLOCK_LIMITS.ranges);
  config.setU32(VIRTIO_BLK_CONFIG_DISCARD_SECTOR_ALIGNMENT, PHYSICAL_BLOCK_SIZE / SECTOR_SIZE);
  config.setU32(VIRTIO_BLK_CONFIG_MAX_WRITE_ZEROES_SECTORS, BLOCK_LIMITS.writeZeroesSectors);
  config.setU32(VIRTIO_BLK_CONFIG_MAX_WRITE_ZEROES_SEG, BLOCK_LIMITS.ranges);
  config.setU8(VIRTIO_BLK_CONFIG_WRITE_ZEROES_MAY_UNMAP, 1);
  return config;
}
