// A network that a process is, which serves the guest's queues by vhost-user. While the device wants to see the frames, they come
// and go through rings of this process's own, which the other then serves in the place of the guest's.
import {
  VIRTIO_F_VERSION_1,
  VIRTIO_RING_F_EVENT_IDX,
  VIRTIO_RING_F_INDIRECT_DESC,
} from "../../../devices/virtio/constants.js";
import { featureSet } from "../../../devices/virtio/features.js";
import type { NetBackend } from "../../../devices/virtio/net/backend.js";
import { NET_TRANSMITQ, VIRTIO_NET_F_MRG_RXBUF } from "../../../devices/virtio/net/constants.js";
import type { NetMoved, NetVhost } from "../../../devices/virtio/net/vhost.js";
import type { ServedQueue } from "../../../devices/virtio/queue.js";
import type { Segments } from "../../../devices/virtio/segments.js";
import { drainEventfd, signalEventfd } from "../../sys/events.js";
import { EOPNOTSUPP, EPIPE, errnoName } from "../../sys/errno.js";
import { waitForInput } from "../../sys/messages.js";
import { arpAnnouncement } from "./arp-announcement.js";
import { FrameRings } from "./frame-rings.js";
import { ReadableWatch } from "./readable-watch.js";
import type { VhostUserProcess } from "./vhost-user-process.js";
import { VhostUserQueues, type VhostUserServices } from "./vhost-user-queues.js";

const QUEUES = 2;
/** What a driver must have chosen: passt puts no frame into buffers that cannot be merged. */
export const NEEDED_NET_FEATURES = featureSet(VIRTIO_F_VERSION_1, VIRTIO_NET_F_MRG_RXBUF);
/** Of the transport's, those that both sides of a ring have to know. */
const RING_FEATURES = featureSet(VIRTIO_RING_F_INDIRECT_DESC, VIRTIO_RING_F_EVENT_IDX);
/** Nobody counts. */
const NOTHING_MOVED: NetMoved = { rxFrames: 0, rxBytes: 0, txFrames: 0, txBytes: 0 };

/** Who serves the rings of which side. */
type Side = "nobody" | "guest" | "own";

export class VhostUserNet implements NetBackend, NetVhost {
  readonly canOffload = false;
  readonly vhost = this;
  readonly name: string;
  readonly features: bigint;
  readonly #memory: VhostUserServices["memory"];
  readonly #frames = new FrameRings();
  readonly #arrivals: ReadableWatch;
  readonly #queues: VhostUserQueues;
  #side: Side = "nobody";
  /** The network knows the guest's address. */
  #isKnown = false;

  /** `features`: what the server knows of virtio. It is ended with this. */
  constructor(server: VhostUserProcess, features: bigint, services: VhostUserServices) {
    this.name = server.name;
    this.features = features;
    this.#memory = services.memory;
    this.#arrivals = new ReadableWatch(this.#frames.arrivalsFd, services.guard);
    this.#queues = new VhostUserQueues(server, QUEUES, services, this.#frames.shared);
  }

  setGuestOffloads(): number {
    // What has come for a driver before this one is not for it.
    this.#leaveOwn();
    return 0;
  }

  /** It sends nothing to a guest that it has not heard of. */
  announce(mac: Uint8Array): void {
    if (this.#isKnown || !this.#takeOwn()) return;
    this.#isKnown = this.#frames.sendOwn(arpAnnouncement(mac));
    const { kickFd, callFd } = this.#frames.sending;
    signalEventfd(kickFd);
    const deadline = this.#queues.deadline();
    while (!this.#frames.isSent && waitForInput(callFd, deadline)) drainEventfd(callFd);
  }

  send(frame: Segments): number {
    if (!this.#takeOwn()) return -EPIPE;
    if (!this.#frames.send(frame, this.#memory)) return 0;
    this.#isKnown = true;
    signalEventfd(this.#frames.sending.kickFd);
    return frame.byteLength;
  }

  receive(buffers: Segments): number {
    return this.#takeOwn() ? this.#frames.receive(buffers, this.#memory) : 0;
  }

  watch(ready: () => void): void {
    this.#arrivals.start(() => {
      drainEventfd(this.#frames.arrivalsFd);
      ready();
    });
  }

  unwatch(): void {
    this.#arrivals.stop();
  }

  explain(error: number): string {
    return error === EOPNOTSUPP ? "the driver wants another kind of ring or buffers" : errnoName(error);
  }

  start(features: bigint, queues: readonly (ServedQueue | undefined)[]): number {
    const isFit =
      (features & RING_FEATURES & ~this.features) === 0n && (features & NEEDED_NET_FEATURES) === NEEDED_NET_FEATURES;
    if (!isFit) return EOPNOTSUPP;
    this.#leaveOwn();
    this.#queues.start(features & this.features, queues);
    if (!this.#queues.isAlive) return EPIPE;
    this.#side = "guest";
    // What was notified while nobody listened.
    this.kick(NET_TRANSMITQ);
    return 0;
  }

  moved(): NetMoved {
    return NOTHING_MOVED;
  }

  relay(used: ((queueIndex: number) => void) | undefined): void {
    this.#queues.relay(used);
  }

  kick(queueIndex: number): void {
    this.#queues.kick(queueIndex);
  }

  stopQueue(queueIndex: number): void {
    this.#queues.stopQueue(queueIndex);
  }

  stop(notified: (queueIndex: number) => void): void {
    this.#queues.stopAll();
    if (this.#side === "guest") this.#side = "nobody";
    this.#queues.hear(notified);
  }

  close(): void {
    if (this.#queues.isClosed) return;
    this.#arrivals.close();
    this.#queues.close();
    this.#frames.close();
  }

  /** The server has the rings of this process's; false if there is none. */
  #takeOwn(): boolean {
    if (this.#side !== "own" && this.#queues.isAlive) {
      this.#side = "own";
      this.#frames.begin();
      this.#queues.startOwn(NEEDED_NET_FEATURES, this.#frames.rings);
    }
    return this.#queues.isAlive;
  }

  #leaveOwn(): void {
    if (this.#side !== "own") return;
    this.#side = "nobody";
    this.#queues.stopOwn();
  }
}
