// What a driver reads of a socket device: the guest's context id. virtio 1.2 §5.10.4.
import { ConfigSpace } from "../config-space.js";
import { VIRTIO_VSOCK_CONFIG_GUEST_CID, VIRTIO_VSOCK_CONFIG_LENGTH, VSOCK_MIN_GUEST_CID } from "./constants.js";
import { MAX_GUEST_CID } from "./state.js";

/** Throws RangeError for a context id that no guest can have. */
export function vsockConfig(guestCid: number): ConfigSpace {
  if (!Number.isInteger(guestCid) || guestCid < VSOCK_MIN_GUEST_CID || guestCid > MAX_GUEST_CID) {
    throw new RangeError(`Context id ${String(guestCid)} is not from 3 to 2^32 - 2`);
  }
  const config = new ConfigSpace(VIRTIO_VSOCK_CONFIG_LENGTH);
  config.setU64(VIRTIO_VSOCK_CONFIG_GUEST_CID, guestCid);
  return config;
}
