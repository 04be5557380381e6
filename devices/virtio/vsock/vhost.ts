// Who serves both packet queues of a socket device in its place: a kernel's vhost-vsock, behind which are the sockets of its host.
import type { ServedQueue } from "../queue.js";

export interface VsockVhost {
  /**
   * Serves the queues, first VSOCK_RX, then VSOCK_TX. They lie in RAM. `features`: what was negotiated. Why it cannot, or undefined.
   * What a driver writes to QueueNotify for them reaches it from here on, and nobody else.
   */
  start(features: bigint, queues: readonly [rx: ServedQueue, tx: ServedQueue]): string | undefined;
  /** There may be chains in the queue. */
  kick(queueIndex: number): void;
  /** Used buffers are told to `used` from now on, or to the driver itself again. Nothing of before is still on its way. */
  relay(used: ((queueIndex: number) => void) | undefined): void;
  /**
   * When this returns, nothing of the queues and their chains is touched any more. Connections stay, and what is sent to the
   * guest waits for the next start.
   */
  stop(): void;
}
