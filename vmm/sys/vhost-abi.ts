// The user-space ABI of the host kernel's vhost back ends, in the order of <linux/vhost_types.h> and <linux/vhost.h>:
// structure sizes (SIZEOF_*), field offsets (one object a structure), feature bits, requests.
// test/unit/kvm-abi.test.ts compares every value with a C compiler's.
import { IO, IOR, IOW } from "./ioctl.js";

const VHOST_VIRTIO = 0xaf;

export const SIZEOF_VHOST_VRING_STATE = 8;
export const vhost_vring_state = { index: 0, num: 4 } as const;

export const SIZEOF_VHOST_VRING_FILE = 8;
export const vhost_vring_file = { index: 0, fd: 4 } as const;

export const SIZEOF_VHOST_VRING_ADDR = 40;
export const vhost_vring_addr = {
  index: 0,
  flags: 4,
  desc_user_addr: 8,
  used_user_addr: 16,
  avail_user_addr: 24,
  log_guest_addr: 32,
} as const;

export const SIZEOF_VHOST_MEMORY_REGION = 32;
export const vhost_memory_region = { guest_phys_addr: 0, memory_size: 8, userspace_addr: 16 } as const;

/** Without its regions, which follow it. */
export const SIZEOF_VHOST_MEMORY = 8;
export const vhost_memory = { nregions: 0 } as const;

/** Bits of the back end itself among those of the device. */
export const VHOST_F_LOG_ALL = 26;
export const VHOST_NET_F_VIRTIO_NET_HDR = 27;

export const VHOST_GET_FEATURES = IOR(VHOST_VIRTIO, 0x00, 8);
export const VHOST_SET_FEATURES = IOW(VHOST_VIRTIO, 0x00, 8);
export const VHOST_SET_OWNER = IO(VHOST_VIRTIO, 0x01);
export const VHOST_SET_MEM_TABLE = IOW(VHOST_VIRTIO, 0x03, SIZEOF_VHOST_MEMORY);
export const VHOST_SET_VRING_NUM = IOW(VHOST_VIRTIO, 0x10, SIZEOF_VHOST_VRING_STATE);
export const VHOST_SET_VRING_ADDR = IOW(VHOST_VIRTIO, 0x11, SIZEOF_VHOST_VRING_ADDR);
export const VHOST_SET_VRING_BASE = IOW(VHOST_VIRTIO, 0x12, SIZEOF_VHOST_VRING_STATE);
export const VHOST_SET_VRING_KICK = IOW(VHOST_VIRTIO, 0x20, SIZEOF_VHOST_VRING_FILE);
export const VHOST_SET_VRING_CALL = IOW(VHOST_VIRTIO, 0x21, SIZEOF_VHOST_VRING_FILE);
export const VHOST_NET_SET_BACKEND = IOW(VHOST_VIRTIO, 0x30, SIZEOF_VHOST_VRING_FILE);
export const VHOST_VSOCK_SET_GUEST_CID = IOW(VHOST_VIRTIO, 0x60, 8);
export const VHOST_VSOCK_SET_RUNNING = IOW(VHOST_VIRTIO, 0x61, 4);
