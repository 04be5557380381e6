// Numbers of the memory balloon, virtio 1.2 §5.5 and linux/virtio_balloon.h.

// §5.5.2: the first two queues. Those after them exist only with their feature, and Linux counts
// them without gaps, as every device that it knows does.
export const BALLOON_INFLATEQ = 0;
export const BALLOON_DEFLATEQ = 1;
export const BALLOON_FIRST_OPTIONAL_QUEUE = 2;

// §5.5.3 feature bits.
export const VIRTIO_BALLOON_F_STATS_VQ = 1;
export const VIRTIO_BALLOON_F_DEFLATE_ON_OOM = 2;
export const VIRTIO_BALLOON_F_FREE_PAGE_HINT = 3;
export const VIRTIO_BALLOON_F_PAGE_REPORTING = 5;

// §5.5.4 struct virtio_balloon_config, offsets.
export const VIRTIO_BALLOON_CONFIG_NUM_PAGES = 0;
export const VIRTIO_BALLOON_CONFIG_ACTUAL = 4;
export const VIRTIO_BALLOON_CONFIG_FREE_PAGE_HINT_CMD_ID = 8;
export const VIRTIO_BALLOON_CONFIG_LENGTH = 16;

/** `bytes` of a page, whatever the guest's own pages are (§5.5.6). */
export const BALLOON_PAGE_SIZE = 4096;
export const BALLOON_PFN_SIZE = 4;

/** `bytes` of struct virtio_balloon_stat: a 16-bit tag and a 64-bit value, packed (§5.5.6.3). */
export const VIRTIO_BALLOON_STAT_SIZE = 10;
