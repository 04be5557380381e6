// vhost-user as bytes: requests of the front end, which has the guest, to the back end, which serves its queues. QEMU's
// manual, "Vhost-user Protocol". Numbers are those of x86-64, little-endian; names are the specification's.

export const VHOST_USER_GET_FEATURES = 1;
export const VHOST_USER_SET_FEATURES = 2;
export const VHOST_USER_SET_OWNER = 3;
export const VHOST_USER_SET_MEM_TABLE = 5;
export const VHOST_USER_SET_VRING_NUM = 8;
export const VHOST_USER_SET_VRING_ADDR = 9;
export const VHOST_USER_SET_VRING_BASE = 10;
export const VHOST_USER_GET_VRING_BASE = 11;
export const VHOST_USER_SET_VRING_KICK = 12;
export const VHOST_USER_SET_VRING_CALL = 13;
export const VHOST_USER_GET_PROTOCOL_FEATURES = 15;
export const VHOST_USER_SET_PROTOCOL_FEATURES = 16;
export const VHOST_USER_SET_VRING_ENABLE = 18;

/** Among the features of virtio: the two below exist. */
export const VHOST_USER_F_PROTOCOL_FEATURES = 1n << 30n;
/** The back end has as many queues as it likes. */
export const VHOST_USER_PROTOCOL_F_MQ = 1n << 0n;

/** Request, flags, size of what follows; 32 bits each. */
export const VHOST_USER_HEADER_BYTES = 12;
const VERSION = 1;
const VERSION_MASK = 3;
const REPLY_FLAG = 1 << 2;
/** "A queue's number, 8 bits; then: no descriptor comes with this message." */
const VRING_NOFD = 1n << 8n;

/** A piece of guest memory, which is `offset` bytes into the descriptor that comes with it. */
export interface VhostMemoryRegion {
  readonly gpa: number;
  readonly size: number;
  /** Addresses of rings are in the front end's own terms. */
  readonly hva: number;
  readonly offset: number;
}

export interface VhostRingAddresses {
  readonly descriptorHva: number;
  readonly usedHva: number;
  readonly availableHva: number;
}

/** A message; `write` fills its `size` bytes of payload. */
export function vhostMessage(request: number, size = 0, write?: (payload: DataView) => void): Uint8Array {
  const bytes = new Uint8Array(VHOST_USER_HEADER_BYTES + size);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, request, true);
  view.setUint32(4, VERSION, true);
  view.setUint32(8, size, true);
  write?.(new DataView(bytes.buffer, VHOST_USER_HEADER_BYTES));
  return bytes;
}

export function u64Message(request: number, value: bigint): Uint8Array {
  return vhostMessage(request, 8, (payload) => {
    payload.setBigUint64(0, value, true);
  });
}

/** A queue's index and a number: of descriptors, of the next chain, or whether it is enabled. */
export function ringStateMessage(request: number, index: number, value: number): Uint8Array {
  return vhostMessage(request, 8, (payload) => {
    payload.setUint32(0, index, true);
    payload.setUint32(4, value, true);
  });
}

export function ringAddressesMessage(index: number, addresses: VhostRingAddresses): Uint8Array {
  return vhostMessage(VHOST_USER_SET_VRING_ADDR, 40, (payload) => {
    payload.setUint32(0, index, true);
    // No flags: nobody follows which pages change.
    payload.setUint32(4, 0, true);
    payload.setBigUint64(8, BigInt(addresses.descriptorHva), true);
    payload.setBigUint64(16, BigInt(addresses.usedHva), true);
    payload.setBigUint64(24, BigInt(addresses.availableHva), true);
  });
}

/** Its descriptors come in the same order. */
export function memoryMessage(regions: readonly VhostMemoryRegion[]): Uint8Array {
  return vhostMessage(VHOST_USER_SET_MEM_TABLE, 8 + 32 * regions.length, (payload) => {
    payload.setUint32(0, regions.length, true);
    regions.forEach(({ gpa, size, hva, offset }, index) => {
      [gpa, size, hva, offset].forEach((value, word) => {
        payload.setBigUint64(8 + 32 * index + 8 * word, BigInt(value), true);
      });
    });
  });
}

/** SET_VRING_KICK or SET_VRING_CALL; `hasDescriptor`: an eventfd comes with it, else the queue has none. */
export function ringEventMessage(request: number, index: number, hasDescriptor: boolean): Uint8Array {
  return u64Message(request, BigInt(index) | (hasDescriptor ? 0n : VRING_NOFD));
}

/** Whether these bytes begin the answer to `request` with a payload of `size` bytes. */
export function isReplyTo(request: number, size: number, header: DataView): boolean {
  const flags = header.getUint32(4, true);
  return (
    header.getUint32(0, true) === request &&
    (flags & VERSION_MASK) === VERSION &&
    (flags & REPLY_FLAG) !== 0 &&
    header.getUint32(8, true) === size
  );
}
