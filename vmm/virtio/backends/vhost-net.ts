// The host kernel's vhost-net behind a TAP interface: a kernel thread moves frames between the interface and the rings in
// guest memory. Linux: Documentation/networking/tuntap.rst says nothing of it; linux/vhost.h does.
import { closeSync, constants, openSync, readSync } from "node:fs";
import { featureSet } from "../../../devices/virtio/features.js";
import type { NetMoved, NetVhost } from "../../../devices/virtio/net/vhost.js";
import type { ServedQueue } from "../../../devices/virtio/queue.js";
import { SystemCallError } from "../../errors.js";
import { ioctlStruct } from "../../sys/ioctl-calls.js";
import { VHOST_F_LOG_ALL, VHOST_NET_F_VIRTIO_NET_HDR, VHOST_NET_SET_BACKEND } from "../../sys/vhost-abi.js";
import type { TapInterface } from "./tap-interface.js";
import { openVhost, VhostRings, type VhostServices } from "./vhost-rings.js";

const VHOST_NET_DEVICE = "/dev/vhost-net";
/** What each interface of this network namespace has moved, a line each. proc(5). */
const INTERFACE_COUNTS = "/proc/self/net/dev";
const COUNTS_PIECE_BYTES = 4096;
/** Queues of the device. */
const QUEUES = 2;
/** In place of a descriptor: no back end. */
const NONE = -1;
/** The header before each frame is the interface's, and pages are followed by nobody while the kernel writes them. */
const NOT_WANTED = featureSet(VHOST_F_LOG_ALL, VHOST_NET_F_VIRTIO_NET_HDR);

/** Throws HostError where the host has none, or it is not for this user. */
export function openVhostNet(): number {
  return openVhost(VHOST_NET_DEVICE, "say vhost=off");
}

export class VhostNet implements NetVhost {
  readonly name = "vhost-net";
  readonly #fd: number;
  readonly #tap: TapInterface;
  readonly #countsFd = openSync(INTERFACE_COUNTS, constants.O_RDONLY);
  readonly #rings: VhostRings;
  #lastMoved: NetMoved = { rxFrames: 0, rxBytes: 0, txFrames: 0, txBytes: 0 };

  /** `fd` is of `openVhostNet`, and closed with it; the interface's stays the caller's. Throws SystemCallError. */
  constructor(fd: number, tap: TapInterface, services: VhostServices) {
    this.#fd = fd;
    this.#tap = tap;
    this.#rings = new VhostRings({ ...services, fd, queues: QUEUES, notWanted: NOT_WANTED });
  }

  get features(): bigint {
    return this.#rings.features;
  }

  start(features: bigint, queues: readonly (ServedQueue | undefined)[]): number {
    this.#rings.direct.unhear();
    try {
      this.#rings.setUp(features, queues);
      queues.forEach((queue, index) => {
        if (queue === undefined) return;
        this.#setBackend(index, this.#tap.fd);
        this.#rings.serves[index] = true;
        // What was notified while nobody listened.
        this.kick(index);
      });
      return 0;
    } catch (error) {
      if (!(error instanceof SystemCallError)) throw error;
      for (let index = 0; index < QUEUES; index++) this.stopQueue(index);
      return error.errno;
    }
  }

  moved(): NetMoved {
    const line = this.#countsLine();
    // It has gone: somebody has removed or renamed it.
    if (line === undefined) return this.#lastMoved;
    // An interface receives what a guest sends. Bytes and frames stand before six kinds of trouble.
    const [txBytes = 0, txFrames = 0, ...rest] = line
      .slice(line.indexOf(":") + 1)
      .trim()
      .split(/\s+/)
      .map(Number);
    const [rxBytes = 0, rxFrames = 0] = rest.slice(6);
    this.#lastMoved = { rxFrames, rxBytes, txFrames, txBytes };
    return this.#lastMoved;
  }

  relay(used: ((queueIndex: number) => void) | undefined): void {
    this.#rings.relay(used);
  }

  kick(queueIndex: number): void {
    this.#rings.kick(queueIndex);
  }

  stopQueue(queueIndex: number): void {
    const { serves } = this.#rings;
    if (serves[queueIndex] !== true) return;
    serves[queueIndex] = false;
    // Returns when the kernel's thread has left the queue.
    this.#setBackend(queueIndex, NONE);
  }

  stop(notified: (queueIndex: number) => void): void {
    for (let index = 0; index < QUEUES; index++) this.stopQueue(index);
    this.#rings.direct.hear(notified);
  }

  /** Before the interface is closed. */
  close(): void {
    this.#rings.close();
    closeSync(this.#countsFd);
  }

  #countsLine(): string | undefined {
    const piece = Buffer.allocUnsafe(COUNTS_PIECE_BYTES);
    let text = "";
    for (let length: number; (length = readSync(this.#countsFd, piece, 0, piece.length, text.length)) > 0;) {
      text += piece.toString("latin1", 0, length);
    }
    return text.split("\n").find((line) => line.trimStart().startsWith(`${this.#tap.name}:`));
  }

  #setBackend(index: number, fd: number): void {
    ioctlStruct(this.#fd, "VHOST_NET_SET_BACKEND", VHOST_NET_SET_BACKEND, Int32Array.of(index, fd));
  }
}
