// The network device's backend over a TAP interface: a frame is one system call between the
// kernel and guest memory, header included, no byte of it through JavaScript's heap.
import { closeSync } from "node:fs";
import type { GuestOffloads, NetBackend } from "../../../devices/virtio/net/backend.js";
import type { Segments } from "../../../devices/virtio/segments.js";
import { IOW } from "../../sys/ioctl.js";
import { EAGAIN, EBADFD, EINTR, EIO, ENODEV, errnoName } from "../../sys/errno.js";
import { IOV_MAX, IoVectors, readvRaw, writevRaw } from "../../sys/files.js";
import { ioctlRaw } from "../../sys/ioctl-calls.js";
import { mmapAnonymous, munmap } from "../../sys/memory.js";
import { gatherVectors, type HostAddresses } from "./host-vectors.js";
import { unguarded, type Guard } from "../guard.js";
import { ReadableWatch, type PollFunction } from "./readable-watch.js";
import type { TapInterface } from "./tap-interface.js";
import type { VhostNet } from "./vhost-net.js";

// linux/if_tun.h: what a frame that is read may leave undone.
const TUNSETOFFLOAD = IOW(0x54, 208, 4);
const TUN_F_CSUM = 0x01;
const TUN_F_TSO4 = 0x02;
const TUN_F_TSO6 = 0x04;

/** `bytes` behind the guest's buffers for the end of a frame that they are too short for. */
const REST_LENGTH = 128 * 1024;

/** The descriptor has lost its interface. */
function isGone(result: number): boolean {
  return result === -EBADFD || result === -ENODEV;
}

export class TapBackend implements NetBackend {
  readonly canOffload = true;
  readonly vhost: VhostNet | undefined;
  readonly #tap: TapInterface;
  readonly #memory: HostAddresses;
  readonly #vectors = new IoVectors(IOV_MAX);
  /** What a frame is received into, as made of `#receivedInto` when that had `#receivedVersion`. */
  readonly #receiveVectors = new IoVectors(IOV_MAX);
  #receivedInto: Segments | undefined;
  #receivedVersion = 0;
  /** Where the lost ends of frames go: a read into too short a buffer would not tell. */
  readonly #restAddress = mmapAnonymous(REST_LENGTH);
  readonly #watch: ReadableWatch;
  readonly #ended: (why: string) => void;
  #hasEnded = false;

  /** `ended` takes the reason why nothing comes any more; `vhost` is closed with the interface. */
  constructor(
    tap: TapInterface,
    memory: HostAddresses,
    ended: (why: string) => void,
    guard: Guard = unguarded,
    poll?: PollFunction,
    vhost?: VhostNet,
  ) {
    this.vhost = vhost;
    this.#tap = tap;
    this.#memory = memory;
    this.#ended = ended;
    this.#watch = new ReadableWatch(tap.fd, guard, poll);
  }

  /** Name of the interface on the host. */
  get name(): string {
    return this.#tap.name;
  }

  setGuestOffloads({ checksum, tso4, tso6 }: GuestOffloads): number {
    const flags = (checksum ? TUN_F_CSUM : 0) | (tso4 ? TUN_F_TSO4 : 0) | (tso6 ? TUN_F_TSO6 : 0);
    let result: number;
    do result = ioctlRaw(this.#tap.fd, TUNSETOFFLOAD, flags);
    while (result === -EINTR);
    return result < 0 ? -result : 0;
  }

  send(frame: Segments): number {
    gatherVectors(this.#vectors, this.#memory, frame, 0);
    let result: number;
    do result = writevRaw(this.#tap.fd, this.#vectors);
    while (result === -EINTR);
    if (isGone(result)) this.#end();
    return result === -EAGAIN ? 0 : result;
  }

  receive(buffers: Segments): number {
    if (this.#hasEnded) return 0;
    const vectors = this.#receiveVectors;
    // Every other call finds nothing to receive and an unchanged list of dozens of ranges: keep what was made of it.
    if (this.#receivedInto !== buffers || this.#receivedVersion !== buffers.version) {
      gatherVectors(vectors, this.#memory, buffers, 0);
      // SAFETY: REST_LENGTH bytes that live until close(); nobody reads them.
      vectors.append(this.#restAddress, REST_LENGTH);
      this.#receivedInto = buffers;
      this.#receivedVersion = buffers.version;
    }
    let result: number;
    do result = readvRaw(this.#tap.fd, vectors);
    while (result === -EINTR);
    if (isGone(result)) {
      this.#end();
      return 0;
    }
    return result === -EAGAIN ? 0 : result;
  }

  watch(ready: () => void): void {
    // What has gone is readable for ever.
    if (!this.#hasEnded) this.#watch.start(ready);
  }

  unwatch(): void {
    this.#watch.stop();
  }

  explain(error: number): string {
    return error === EIO ? `interface ${this.name} is down (EIO)` : errnoName(error);
  }

  /** Somebody has removed the interface: it does not come back, one of the same name is another. */
  #end(): void {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    this.#watch.stop();
    this.#ended(`its interface ${this.name} has been removed`);
  }

  /** Lets the interface go; one that was made for this guest disappears. */
  close(): void {
    this.vhost?.close();
    this.#watch.close();
    closeSync(this.#tap.fd);
    munmap(this.#restAddress, REST_LENGTH);
  }
}
