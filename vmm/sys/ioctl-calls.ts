// ioctl(2), as numbers and as structures. Request numbers are made in ioctl.ts.
import { EINTR, systemCallError, uninterrupted } from "./errno.js";
import { koffi, lazy, libc } from "./koffi.js";

// Two prototypes instead of a variadic one: 339 ns against 451 ns a call.
const ioctlNumber = libc.func("ioctl", "int", ["int", "ulong", "int64_t"]);

const ioctlBuffer = lazy("ioctl", "int", ["int", "ulong", "void *"]);

/** ioctl with an integer argument; throws an error that carries `name`. */
export function ioctl(fd: number, name: string, request: number, argument = 0): number {
  let result = ioctlNumber(fd, request, argument);
  if (result < 0 && koffi.errno() === EINTR) result = uninterrupted(() => ioctlNumber(fd, request, argument));
  if (result < 0) throw systemCallError(name);
  return result;
}

/** ioctl on a structure; `structure` must have the size that `request` encodes, or what it counts. */
export function ioctlStruct(fd: number, name: string, request: number, structure: ArrayBufferView): number {
  // SAFETY: the caller's buffer outlives this synchronous call; its size is checked by the wrappers in vmm/kvm/.
  let result = ioctlBuffer(fd, request, structure);
  if (result < 0 && koffi.errno() === EINTR) result = uninterrupted(() => ioctlBuffer(fd, request, structure));
  if (result < 0) throw systemCallError(name);
  return result;
}

/** KVM_RUN and other hot requests: 0 or more, or the negative errno; never throws. */
export function ioctlRaw(fd: number, request: number, argument: number): number {
  const result = ioctlNumber(fd, request, argument);
  return result < 0 ? -koffi.errno() : result;
}

/** As ioctlRaw, on a structure of the size that `request` encodes. */
export function ioctlStructRaw(fd: number, request: number, structure: ArrayBufferView): number {
  // SAFETY: as ioctlStruct.
  const result = ioctlBuffer(fd, request, structure);
  return result < 0 ? -koffi.errno() : result;
}
