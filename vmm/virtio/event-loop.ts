// Node's event loop as the devices see it; they live on the thread that this is called on.
import type { EventLoop } from "../../devices/virtio/event-loop.js";

export const nodeEventLoop: EventLoop = {
  now: () => performance.now(),
  defer: (task) => void setImmediate(task),
  after: (delayMs, task) => {
    const timer = setTimeout(task, delayMs);
    return () => clearTimeout(timer);
  },
};
