// Event descriptors: eventfd(2), and waiting for one on the event loop.
import { systemCallError, uninterrupted } from "./errno.js";
import { koffi, lazy, type PollHandle } from "./koffi.js";

const EFD_NONBLOCK = 0o4000;
const EFD_CLOEXEC = 0o2000000;
const nativeEventfd = lazy("eventfd", "int", ["uint", "int"]);
const nativeWrite = lazy("write", "int64_t", ["int", "void *", "size_t"]);
const nativeRead = lazy("read", "int64_t", ["int", "void *", "size_t"]);

/** Non-blocking eventfd. */
export function eventfd(): number {
  const fd = uninterrupted(() => nativeEventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  if (fd < 0) throw systemCallError("eventfd");
  return fd;
}

const one = new BigUint64Array([1n]);
const drained = new BigUint64Array(1);

/** Adds 1 to an eventfd: one wake-up. */
export function signalEventfd(fd: number): void {
  // SAFETY: 8 bytes of a module-level buffer, read during this call only.
  if (nativeWrite(fd, one, 8) < 0) uninterrupted(() => nativeWrite(fd, one, 8));
}

/** Resets an eventfd's counter; nothing happens if it is 0 already. */
export function drainEventfd(fd: number): void {
  // SAFETY: 8 bytes of a module-level buffer, written during this call only.
  if (nativeRead(fd, drained, 8) < 0) uninterrupted(() => nativeRead(fd, drained, 8));
}

/** Calls back on the event loop when `fd` is readable. Keep the handle: a collected one never calls back. */
export function pollReadable(fd: number, callback: () => void): PollHandle {
  return koffi.node.poll(fd, { readable: true }, callback);
}

export type { PollHandle };
