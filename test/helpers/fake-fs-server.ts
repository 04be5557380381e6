// A server of a shared folder that serves nothing, and remembers what it is told.
import type { FsBackend, FsSession } from "../../devices/virtio/fs/backend.js";
import type { ServedQueue } from "../../devices/virtio/queue.js";

export class FakeFsServer implements FsBackend {
  onLost: (() => void) | undefined;
  readonly calls: string[] = [];
  queues: readonly (ServedQueue | undefined)[] = [];
  used: ((queueIndex: number) => void) | undefined;
  notified: ((queueIndex: number) => void) | undefined;

  start(features: bigint, queues: readonly (ServedQueue | undefined)[], session?: FsSession): void {
    this.calls.push(
      `start ${features.toString(16)}${session === undefined ? "" : ` after ${String(session.init.length)} bytes`}`,
    );
    this.queues = queues;
  }

  kick(queueIndex: number): void {
    this.calls.push(`kick ${String(queueIndex)}`);
  }

  stopQueue(queueIndex: number): void {
    this.calls.push(`stop ${String(queueIndex)}`);
  }

  relay(used: ((queueIndex: number) => void) | undefined): void {
    this.used = used;
  }

  hearNotifications(notified: (queueIndex: number) => void): void {
    this.notified = notified;
  }
}
