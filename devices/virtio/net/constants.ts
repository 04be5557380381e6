// Numbers of the network device, virtio 1.2 §5.1 and linux/virtio_net.h.

// §5.1.2 queues of a device with one pair.
export const NET_RECEIVEQ = 0;
export const NET_TRANSMITQ = 1;

// §5.1.3 feature bits.
export const VIRTIO_NET_F_CSUM = 0;
export const VIRTIO_NET_F_GUEST_CSUM = 1;
export const VIRTIO_NET_F_MTU = 3;
export const VIRTIO_NET_F_MAC = 5;
export const VIRTIO_NET_F_GUEST_TSO4 = 7;
export const VIRTIO_NET_F_GUEST_TSO6 = 8;
export const VIRTIO_NET_F_HOST_TSO4 = 11;
export const VIRTIO_NET_F_HOST_TSO6 = 12;
export const VIRTIO_NET_F_MRG_RXBUF = 15;
export const VIRTIO_NET_F_STATUS = 16;

// §5.1.4 struct virtio_net_config, offsets.
export const VIRTIO_NET_CONFIG_MAC = 0;
export const VIRTIO_NET_CONFIG_STATUS = 6;
export const VIRTIO_NET_CONFIG_MAX_VIRTQUEUE_PAIRS = 8;
export const VIRTIO_NET_CONFIG_MTU = 10;
export const VIRTIO_NET_CONFIG_LENGTH = 12;

export const VIRTIO_NET_S_LINK_UP = 1;

/** `bytes` of struct virtio_net_hdr; num_buffers is always there with VERSION_1 (§5.1.6). */
export const VIRTIO_NET_HDR_SIZE = 12;
export const VIRTIO_NET_HDR_NUM_BUFFERS = 10;

/** `bytes` of an Ethernet header: no frame is shorter. */
export const ETHERNET_HEADER_SIZE = 14;
/** `bytes` of an Ethernet header with an 802.1Q tag. */
export const ETHERNET_VLAN_HEADER_SIZE = 18;
/** `bytes` of the largest frame that a driver may have segmented: an IP packet behind a tagged header. */
export const MAX_GSO_FRAME_SIZE = ETHERNET_VLAN_HEADER_SIZE + 65535;
export const DEFAULT_MTU = 1500;
