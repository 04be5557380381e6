// RST packets for connections that do not exist: a guest can cause any number of them, so theirs is
// bounded, and once it is reached no more of its packets are looked at.
import { VIRTIO_VSOCK_OP_RST } from "./constants.js";
import type { VsockHeader } from "./header.js";

const CAPACITY = 64;

interface Reset {
  readonly hostPort: number;
  readonly guestPort: number;
  readonly type: number;
}

export class ResetQueue {
  #resets: Reset[] = [];

  get length(): number {
    return this.#resets.length;
  }

  get isFull(): boolean {
    return this.#resets.length >= CAPACITY;
  }

  /** `type` is the one that the guest has used, known or not. */
  add(hostPort: number, guestPort: number, type: number): void {
    this.#resets.push({ hostPort, guestPort, type });
  }

  /** Fills the oldest in. */
  take(header: VsockHeader): void {
    const reset = this.#resets.shift();
    if (reset === undefined) return;
    header.sourcePort = reset.hostPort;
    header.destinationPort = reset.guestPort;
    header.type = reset.type;
    header.operation = VIRTIO_VSOCK_OP_RST;
    header.length = 0;
    header.flags = 0;
    header.bufferSize = 0;
    header.forwarded = 0;
  }

  clear(): void {
    this.#resets = [];
  }
}
