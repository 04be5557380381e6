// Numbers of the file system device, by their names in virtio 1.2 §5.11 and in Linux's fuse.h.

/** Requests that must not wait behind others: interrupts of them, forgotten inodes. */
export const FS_HIPRIO_QUEUE = 0;
/** The first of the request queues; there is one. */
export const FS_REQUEST_QUEUE = 1;

/** struct virtio_fs_config: tag, then the number of request queues. */
export const FS_CONFIG_TAG_BYTES = 36;
export const FS_CONFIG_NUM_REQUEST_QUEUES = 36;
export const FS_CONFIG_BYTES = 40;

export const FUSE_INIT = 26;
/** struct fuse_in_header: length, opcode, then the request's own number, 8 bytes. */
export const FUSE_IN_HEADER_BYTES = 40;
export const FUSE_IN_HEADER_OPCODE = 4;
export const FUSE_IN_HEADER_UNIQUE = 8;
/** struct fuse_out_header: length, error, the number of the request. */
export const FUSE_OUT_HEADER_BYTES = 16;
export const FUSE_OUT_HEADER_ERROR = 4;
/** With struct fuse_init_in: 56 bytes for Linux before 5.17, 104 from then on. */
export const MAX_FUSE_INIT_BYTES = 256;
/** Of what a server is told again. */
export const MAX_JOURNAL_BYTES = 2 ** 20;
/** errno.h: what a file system answers whose server has gone. */
export const ENOTCONN = 107;
