// What may serve the queues of a network device in its place: a kernel's vhost-net moves the frames between the rings and
// the interface, a process that speaks vhost-user moves them to where it is a network; and the monitor does not wake up for one.
// The device may take the queues back at any time.
import type { ServedQueue } from "../queue.js";

/** What an interface has moved since it was made, as the guest sees it; all 0 where nobody counts. */
export interface NetMoved {
  readonly rxFrames: number;
  readonly rxBytes: number;
  readonly txFrames: number;
  readonly txBytes: number;
}

export interface NetVhost {
  /** In messages. */
  readonly name: string;
  /** What it knows of virtio. A driver that has chosen more of the transport's features is refused. */
  readonly features: bigint;
  /**
   * Serves these queues; undefined stands for one that the driver has not set up. They lie in RAM. `features`: what was
   * negotiated. An error number if it cannot; then it has touched nothing. What a driver writes to QueueNotify reaches
   * it from here on, and nobody else.
   */
  start(features: bigint, queues: readonly (ServedQueue | undefined)[]): number;
  /** Who serves the queues counts nothing: the interface does, if there is one. */
  moved(): NetMoved;
  /** Used buffers are told to `used` from now on, or to the driver itself again. Nothing of before is still on its way. */
  relay(used: ((queueIndex: number) => void) | undefined): void;
  /** There may be chains in the queue. */
  kick(queueIndex: number): void;
  /** When this returns, nothing of the queue and its chains is touched any more. Nothing if it does not serve it. */
  stopQueue(queueIndex: number): void;
  /** The same for all, and `notified` is called for what a driver writes to QueueNotify, until the next start. */
  stop(notified: (queueIndex: number) => void): void;
}
