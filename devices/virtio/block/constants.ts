// Numbers of the block device, virtio 1.2 §5.2 and linux/virtio_blk.h.

// §5.2.3 feature bits.
export const VIRTIO_BLK_F_SIZE_MAX = 1;
export const VIRTIO_BLK_F_SEG_MAX = 2;
export const VIRTIO_BLK_F_RO = 5;
export const VIRTIO_BLK_F_BLK_SIZE = 6;
export const VIRTIO_BLK_F_FLUSH = 9;
export const VIRTIO_BLK_F_TOPOLOGY = 10;
export const VIRTIO_BLK_F_DISCARD = 13;
export const VIRTIO_BLK_F_WRITE_ZEROES = 14;

// §5.2.4 struct virtio_blk_config, offsets.
export const VIRTIO_BLK_CONFIG_CAPACITY = 0;
export const VIRTIO_BLK_CONFIG_SIZE_MAX = 8;
export const VIRTIO_BLK_CONFIG_SEG_MAX = 12;
export const VIRTIO_BLK_CONFIG_BLK_SIZE = 20;
export const VIRTIO_BLK_CONFIG_PHYSICAL_BLOCK_EXP = 24;
export const VIRTIO_BLK_CONFIG_MIN_IO_SIZE = 26;
export const VIRTIO_BLK_CONFIG_MAX_DISCARD_SECTORS = 36;
export const VIRTIO_BLK_CONFIG_MAX_DISCARD_SEG = 40;
export const VIRTIO_BLK_CONFIG_DISCARD_SECTOR_ALIGNMENT = 44;
export const VIRTIO_BLK_CONFIG_MAX_WRITE_ZEROES_SECTORS = 48;
export const VIRTIO_BLK_CONFIG_MAX_WRITE_ZEROES_SEG = 52;
export const VIRTIO_BLK_CONFIG_WRITE_ZEROES_MAY_UNMAP = 56;
export const VIRTIO_BLK_CONFIG_LENGTH = 60;

// §5.2.6 struct virtio_blk_req.
export const VIRTIO_BLK_T_IN = 0;
export const VIRTIO_BLK_T_OUT = 1;
export const VIRTIO_BLK_T_FLUSH = 4;
export const VIRTIO_BLK_T_GET_ID = 8;
export const VIRTIO_BLK_T_DISCARD = 11;
export const VIRTIO_BLK_T_WRITE_ZEROES = 13;

export const VIRTIO_BLK_S_OK = 0;
export const VIRTIO_BLK_S_IOERR = 1;
export const VIRTIO_BLK_S_UNSUPP = 2;

/** type, reserved, sector. */
export const VIRTIO_BLK_OUTHDR_SIZE = 16;
export const VIRTIO_BLK_ID_BYTES = 20;

// struct virtio_blk_discard_write_zeroes: sector, num_sectors, flags.
export const VIRTIO_BLK_RANGE_SIZE = 16;
export const VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP = 1;

/** `bytes`: what every sector number counts, whatever blk_size is (§5.2.6). */
export const SECTOR_SIZE = 512;
