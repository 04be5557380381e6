// Node's event loop as the devices see it; they live on the thread that this is called on.
import type { EventLoop } from "../../devices/virtio/event-loop.js";

/** What setTimeout holds, `ms`: it fires a longer wait at once. Whoever is called too early looks again. */
const MAX_DELAY_MS = 2 ** 31 - 1;

export const nodeEventLoop: EventLoop = {
  now: () => performance.now(),
  defer: (task) => void setImmediate(task),
  after: (delayMs, task) => {
    const timer = setTimeout(task, Math.min(delayMs, MAX_DELAY_MS));
    return () => clearTimeout(timer);
  },
};
