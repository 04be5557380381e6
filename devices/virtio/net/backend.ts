// The host's side of a network device, as the device wants it: whole Ethernet frames, each behind
// a struct virtio_net_hdr (virtio 1.2 §5.1.6), straight from and to guest memory. Nothing throws.
import type { Segments } from "../segments.js";
import type { NetVhost } from "./vhost.js";

/** What the guest's driver is able to finish in a frame that it receives. */
export interface GuestOffloads {
  /** Checksums that are not filled in. */
  readonly checksum: boolean;
  /** TCP segments larger than the MTU, over IPv4 and IPv6. */
  readonly tso4: boolean;
  readonly tso6: boolean;
}

export interface NetBackend {
  /** It fills in checksums, segments large frames of the guest and may send large ones itself. */
  readonly canOffload: boolean;
  /** Serves the queues where nobody has to look at the frames. */
  readonly vhost?: NetVhost | undefined;
  /** Comes before the first frame: 0 or an error number. */
  setGuestOffloads(offloads: GuestOffloads): number;
  /** True if the frame, with its header, was for the backend itself: it is done with, and no limit counts it. */
  takesAside?(frame: Segments): boolean;
  /** The guest has this address from here on: said before it sends anything itself, if it ever does. */
  announce?(mac: Uint8Array): void;
  /** Sends a frame: above 0 if it was taken, 0 if it has to be tried again later, else minus an error number. */
  send(frame: Segments): number;
  /**
   * Receives the next frame: its `bytes` with the header, more than `buffers` hold if its end is
   * lost; 0 if there is none; else minus an error number.
   */
  receive(buffers: Segments): number;
  /** Has `ready` called, in later turns, while there are frames to receive. */
  watch(ready: () => void): void;
  /** No such calls until `watch` is called again. */
  unwatch(): void;
  /** An error number in words, such as "EIO". */
  explain(error: number): string;
}
