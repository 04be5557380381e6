/**
 * The driver has broken the protocol so far that the device cannot go on: the transport catches
 * it, sets DEVICE_NEEDS_RESET (virtio 1.2 §2.1.2) and counts. The message says what was wrong.
 */
export class QueueError extends Error {
  override readonly name = "QueueError";
}
