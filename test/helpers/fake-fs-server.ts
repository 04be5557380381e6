// A server of a shared folder that serves nothing, and remembers what it is told.
import type { FsBackend, ServedQueue } from "../../devices/virtio/fs/backend.js";

export class FakeFsServer implements FsBackend {
  onLost: (() => void) | undefined;
  readonly calls: string[] = [];
  queues: readonly (ServedQueue | undefined)[] = [];
  used: (() => void) | undefined;
  notified: ((queueIndex: number) => void) | undefined;

  start(features: bigint, queues: readonly (ServedQueue | undefined)[], init?: Uint8Array): void {
    this.calls.push(`start ${features.toString(16)}${init === undefined ? "" : ` after ${String(init.length)} bytes`}`);
    this.queues = queues;
  }

  kick(queueIndex: number): void {
    this.calls.push(`kick ${String(queueIndex)}`);
  }

  stopQueue(queueIndex: number): void {
    this.calls.push(`stop ${String(queueIndex)}`);
  }

  relay(used: (() => void) | undefined): void {
    this.used = used;
  }

  hearNotifications(notified: (queueIndex: number) => void): void {
    this.notified = notified;
  }
}
