// How somebody who serves queues in the monitor's place tells of used buffers: by the eventfds that interrupt the driver, one a
// queue, or for a while by others that this thread watches.
import { closeDescriptor } from "../../sys/descriptors.js";
import { drainEventfd, eventfd } from "../../sys/events.js";
import type { Guard } from "../guard.js";
import { ReadableWatch } from "./readable-watch.js";

type Used = (queueIndex: number) => void;

interface Relay {
  readonly fd: number;
  readonly watch: ReadableWatch;
}

export class UsedNotifications {
  /** By queue: the driver's interrupts, once they are connected. */
  readonly interruptFds: readonly number[];
  readonly #guard: Guard;
  /** In their place while this thread relays; made when first wanted. */
  #relays: readonly Relay[] | undefined;
  #used: Used | undefined;

  constructor(queues: number, guard: Guard) {
    this.interruptFds = Array.from({ length: queues }, () => eventfd());
    this.#guard = guard;
  }

  /** What is to be signalled now for a queue that there is. */
  fd(queueIndex: number): number {
    const fd =
      this.#used === undefined
        ? this.interruptFds[queueIndex]
        : (this.#relays ??= this.interruptFds.map((_, index) => this.#makeRelay(index)))[queueIndex]?.fd;
    if (fd === undefined) throw new RangeError(`There is no queue ${String(queueIndex)}`);
    return fd;
  }

  /** Used buffers are told to `used`, or to the driver itself again. False if `fd` stays what it was. */
  relay(used: Used | undefined): boolean {
    if ((used === undefined) === (this.#used === undefined)) return false;
    this.#used = used;
    return true;
  }

  close(): void {
    for (const { fd, watch } of this.#relays ?? []) {
      watch.close();
      closeDescriptor(fd);
    }
    for (const fd of this.interruptFds) closeDescriptor(fd);
  }

  /** Watched for good: what was signalled before the other side heard that it is no more relayed is relayed, too. */
  #makeRelay(queueIndex: number): Relay {
    const fd = eventfd();
    const watch = new ReadableWatch(fd, this.#guard);
    let last = this.#used;
    watch.start(() => {
      drainEventfd(fd);
      last = this.#used ?? last;
      last?.(queueIndex);
    });
    return { fd, watch };
  }
}
