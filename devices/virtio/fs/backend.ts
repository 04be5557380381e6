// What the file system device wants of the host: a server that takes its requests from the queues in guest
// memory itself, and answers there.
import type { ServedQueue } from "../queue.js";

/** What another server can be asked for again, so that the driver does not notice that it is another. */
export interface FsSession {
  /** The request that began it. */
  readonly init: Uint8Array;
  /** What behind it has left something with the server, in the backend's own form; empty: nothing. */
  readonly journal: Uint8Array;
}

export interface FsBackend {
  /** The server has gone, once; after that the device has nothing to ask of it. */
  onLost: (() => void) | undefined;
  /**
   * Serves these queues; undefined stands for one that the driver has not set up. They lie in RAM. `session`: what the driver
   * has had with a server before this one.
   */
  start(features: bigint, queues: readonly (ServedQueue | undefined)[], session?: FsSession): void;
  /** There may be requests in the queue. */
  kick(queueIndex: number): void;
  /** When this returns, the server touches nothing of the queue and its requests. Nothing if it does not serve it. */
  stopQueue(queueIndex: number): void;
  /** Of all requests since the session's beginning that have left something with the server; undefined if nobody knows them. */
  journal?(): Uint8Array | undefined;
  /** Used buffers are told to `used` from now on, or to the driver itself again. Nothing of before is still on its way. */
  relay(used: ((queueIndex: number) => void) | undefined): void;
  /** What a driver writes to QueueNotify, and no longer reaches the server, comes here. */
  hearNotifications(notified: (queueIndex: number) => void): void;
}
