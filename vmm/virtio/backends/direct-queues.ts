// The descriptors by which a driver and whoever serves its queues in the monitor's place wake each other: KVM has them, too,
// so nothing of it passes through this process.
import { closeDescriptor } from "../../sys/descriptors.js";
import { drainEventfd, eventfd, signalEventfd } from "../../sys/events.js";
import type { DirectEvents } from "../device-host.js";
import type { Guard } from "../guard.js";
import { ReadableWatch } from "./readable-watch.js";
import { UsedNotifications } from "./used-notification.js";

export interface DirectServices {
  readonly events: DirectEvents;
  readonly guard: Guard;
}

export class DirectQueues {
  /** By queue: what the driver signals when there may be chains. */
  readonly kickFds: readonly number[];
  /** What it is signalled by. */
  readonly calls: UsedNotifications;
  readonly #events: DirectEvents;
  readonly #watches: readonly ReadableWatch[];
  #isWired = false;

  constructor(queues: number, { events, guard }: DirectServices) {
    this.#events = events;
    this.kickFds = Array.from({ length: queues }, () => eventfd());
    this.#watches = this.kickFds.map((fd) => new ReadableWatch(fd, guard));
    this.calls = new UsedNotifications(queues, guard);
  }

  /** From here on, what a driver writes to QueueNotify is signalled. Once: the descriptors stay the same over resets. */
  wire(): void {
    if (this.#isWired) return;
    this.#isWired = true;
    this.kickFds.forEach((fd, queueIndex) => {
      this.#events.connectKick(queueIndex, fd);
    });
    this.calls.interruptFds.forEach((fd, queueIndex) => {
      this.#events.connectInterrupt(queueIndex, fd);
    });
  }

  kickFd(queueIndex: number): number {
    const fd = this.kickFds[queueIndex];
    if (fd === undefined) throw new RangeError(`There is no queue ${String(queueIndex)}`);
    return fd;
  }

  /** There may be chains in the queue. */
  kick(queueIndex: number): void {
    const fd = this.kickFds[queueIndex];
    if (fd !== undefined) signalEventfd(fd);
  }

  /** This process serves the queues: what the driver signals comes to `notified`, until `unhear`. */
  hear(notified: (queueIndex: number) => void): void {
    this.#watches.forEach((watch, queueIndex) => {
      watch.start(() => {
        drainEventfd(this.kickFd(queueIndex));
        notified(queueIndex);
      });
    });
  }

  unhear(): void {
    for (const watch of this.#watches) watch.stop();
  }

  close(): void {
    for (const watch of this.#watches) watch.close();
    this.calls.close();
    for (const fd of this.kickFds) closeDescriptor(fd);
  }
}
