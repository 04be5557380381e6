// Has the kernel kick a thread when something comes for a descriptor: one that runs a guest sits in KVM_RUN, where no event loop
// looks. fcntl(2), F_SETSIG and F_SETOWN_EX.
import { fcntl } from "./descriptors.js";
import { systemCallError, uninterrupted } from "./errno.js";
import { gettid, installKickHandler, KICK_SIGNAL } from "./kick.js";
import { lazy } from "./koffi.js";

const nativeFcntl = lazy("fcntl", "int", ["int", "int", "void *"]);
const F_GETFL = 3;
const F_SETFL = 4;
const F_SETSIG = 10;
const F_SETOWN_EX = 15;
const F_OWNER_TID = 0;
const O_ASYNC = 0o20000;

/** For the calling thread, as long as it lives. A kick that comes just before KVM_RUN interrupts nothing: it is no substitute for a look. */
export function kickAtInput(fd: number): void {
  installKickHandler();
  // struct f_owner_ex: what it is, and its number.
  const owner = Int32Array.of(F_OWNER_TID, gettid());
  // SAFETY: struct f_owner_ex is read during this call only.
  if (uninterrupted(() => nativeFcntl(fd, F_SETOWN_EX, owner)) < 0) throw systemCallError("F_SETOWN_EX");
  fcntl(fd, "F_SETSIG", F_SETSIG, KICK_SIGNAL);
  fcntl(fd, "F_SETFL", F_SETFL, fcntl(fd, "F_GETFL", F_GETFL, 0) | O_ASYNC);
}
