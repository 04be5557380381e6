// How somebody who serves queues in the monitor's place tells of used buffers: by the eventfd that interrupts the driver, or
// for a while by one that this thread watches.
import { closeDescriptor } from "../../sys/descriptors.js";
import { drainEventfd, eventfd } from "../../sys/events.js";
import type { Guard } from "../guard.js";
import { ReadableWatch } from "./readable-watch.js";

export class UsedNotification {
  /** The driver's interrupt, once it is connected. */
  readonly interruptFd = eventfd();
  readonly #guard: Guard;
  /** In its place while this thread relays; made when first wanted. */
  #relay: { readonly fd: number; readonly watch: ReadableWatch } | undefined;
  #used: (() => void) | undefined;

  constructor(guard: Guard) {
    this.#guard = guard;
  }

  /** What is to be signalled now. */
  get fd(): number {
    return this.#used === undefined ? this.interruptFd : (this.#relay ??= this.#makeRelay()).fd;
  }

  /** Used buffers are told to `used`, or to the driver itself again. False if `fd` stays what it was. */
  relay(used: (() => void) | undefined): boolean {
    if ((used === undefined) === (this.#used === undefined)) return false;
    this.#used = used;
    return true;
  }

  close(): void {
    this.#relay?.watch.close();
    if (this.#relay !== undefined) closeDescriptor(this.#relay.fd);
    closeDescriptor(this.interruptFd);
  }

  /** Watched for good: what was signalled before the other side heard that it is no more relayed is relayed, too. */
  #makeRelay() {
    const fd = eventfd();
    const watch = new ReadableWatch(fd, this.#guard);
    let last = this.#used;
    watch.start(() => {
      drainEventfd(fd);
      last = this.#used ?? last;
      last?.();
    });
    return { fd, watch };
  }
}
