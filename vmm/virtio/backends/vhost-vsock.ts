// The host kernel's vhost-vsock: programs of this host reach the guest by AF_VSOCK at its context id, and the guest's programs
// those of the host at context id 2. A kernel thread moves the packets; linux/vhost.h.
import { closeSync } from "node:fs";
import { VSOCK_RX, VSOCK_TX } from "../../../devices/virtio/vsock/constants.js";
import type { VsockVhost } from "../../../devices/virtio/vsock/vhost.js";
import { featureSet } from "../../../devices/virtio/features.js";
import type { ServedQueue } from "../../../devices/virtio/queue.js";
import { HostError, SystemCallError } from "../../errors.js";
import { ioctlStruct } from "../../sys/ioctl-calls.js";
import { VHOST_F_LOG_ALL, VHOST_VSOCK_SET_GUEST_CID, VHOST_VSOCK_SET_RUNNING } from "../../sys/vhost-abi.js";
import { openVhost, VhostRings, type VhostServices } from "./vhost-rings.js";

const VHOST_VSOCK_DEVICE = "/dev/vhost-vsock";
/** It would follow the rings alone, not the pages that it writes data to. */
const NOT_WANTED = featureSet(VHOST_F_LOG_ALL);
/** VSOCK_RX and VSOCK_TX; the third is the device's own. */
const QUEUES = 2;

/**
 * The context id is this process's until the descriptor is closed, however it ends. Throws HostError where the host has no
 * vhost-vsock, it is not for this user, or somebody has the context id.
 */
export function openVhostVsock(cid: number): number {
  const fd = openVhost(VHOST_VSOCK_DEVICE, "give the device a Unix socket (path=)");
  try {
    ioctlStruct(fd, "VHOST_VSOCK_SET_GUEST_CID", VHOST_VSOCK_SET_GUEST_CID, BigUint64Array.of(BigInt(cid)));
    return fd;
  } catch (error) {
    closeSync(fd);
    if (!(error instanceof SystemCallError) || error.errnoName !== "EADDRINUSE") throw error;
    throw new HostError(
      `${VHOST_VSOCK_DEVICE}: context id ${String(cid)} is another guest's, or this host's own (EADDRINUSE)`,
      {
        cause: error,
        cure: "give this guest another one (cid=)",
      },
    );
  }
}

export class VhostVsock implements VsockVhost {
  readonly #fd: number;
  readonly #rings: VhostRings;

  /** `fd` is of `openVhostVsock`, and closed with it. Throws SystemCallError. */
  constructor(fd: number, services: VhostServices) {
    this.#fd = fd;
    this.#rings = new VhostRings({ ...services, fd, queues: QUEUES, notWanted: NOT_WANTED });
  }

  start(features: bigint, queues: readonly [rx: ServedQueue, tx: ServedQueue]): string | undefined {
    try {
      this.#rings.setUp(features, queues);
      this.#setRunning(true);
    } catch (error) {
      if (error instanceof SystemCallError) return error.message;
      throw error;
    }
    // What was notified while nobody listened.
    for (const queueIndex of [VSOCK_RX, VSOCK_TX]) this.kick(queueIndex);
    return undefined;
  }

  kick(queueIndex: number): void {
    this.#rings.kick(queueIndex);
  }

  relay(used: ((queueIndex: number) => void) | undefined): void {
    this.#rings.relay(used);
  }

  stop(): void {
    // Returns when the kernel's thread has left both queues.
    this.#setRunning(false);
  }

  /** All connections end with it. */
  close(): void {
    this.#rings.close();
  }

  #setRunning(isRunning: boolean): void {
    const value = Int32Array.of(isRunning ? 1 : 0);
    ioctlStruct(this.#fd, "VHOST_VSOCK_SET_RUNNING", VHOST_VSOCK_SET_RUNNING, value);
    this.#rings.serves.fill(isRunning);
  }
}
