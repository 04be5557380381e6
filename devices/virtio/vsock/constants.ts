// Numbers of the socket device, virtio 1.2 §5.10 and linux/virtio_vsock.h.

// §5.10.2 queues.
export const VSOCK_RX = 0;
export const VSOCK_TX = 1;
export const VSOCK_EVENT = 2;
/** Descriptors of each of them, at most. */
export const VSOCK_QUEUE_SIZE = 128;

// §5.10.4 struct virtio_vsock_config, offsets.
export const VIRTIO_VSOCK_CONFIG_GUEST_CID = 0;
export const VIRTIO_VSOCK_CONFIG_LENGTH = 8;

/** The host's context id. */
export const VMADDR_CID_HOST = 2;
/** The smallest context id that a guest can have. */
export const VSOCK_MIN_GUEST_CID = 3;

/** `bytes` of struct virtio_vsock_hdr. */
export const VIRTIO_VSOCK_HDR_SIZE = 44;

export const VIRTIO_VSOCK_TYPE_STREAM = 1;

export const VIRTIO_VSOCK_OP_REQUEST = 1;
export const VIRTIO_VSOCK_OP_RESPONSE = 2;
export const VIRTIO_VSOCK_OP_RST = 3;
export const VIRTIO_VSOCK_OP_SHUTDOWN = 4;
export const VIRTIO_VSOCK_OP_RW = 5;
export const VIRTIO_VSOCK_OP_CREDIT_UPDATE = 6;
export const VIRTIO_VSOCK_OP_CREDIT_REQUEST = 7;

/** `bytes` of struct virtio_vsock_event: its id (§5.10.6.7). */
export const VIRTIO_VSOCK_EVENT_SIZE = 4;
export const VIRTIO_VSOCK_EVENT_TRANSPORT_RESET = 0;

/** The sender of SHUTDOWN will receive no more ... */
export const VIRTIO_VSOCK_SHUTDOWN_F_RECEIVE = 1;
/** ... or send no more. */
export const VIRTIO_VSOCK_SHUTDOWN_F_SEND = 2;
export const VIRTIO_VSOCK_SHUTDOWN_BOTH = VIRTIO_VSOCK_SHUTDOWN_F_RECEIVE | VIRTIO_VSOCK_SHUTDOWN_F_SEND;
