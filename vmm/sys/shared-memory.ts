// Memory that other processes can map, too: memfd_create(2), a file without a name whose size is sealed, so that nobody
// who has the descriptor can take the pages away from under those who have mapped them.
import { closeDescriptor, fcntl } from "./descriptors.js";
import { systemCallError, uninterrupted } from "./errno.js";
import { lazy } from "./koffi.js";

const nativeMemfdCreate = lazy("memfd_create", "int", ["str", "uint"]);
const nativeFtruncate = lazy("ftruncate", "int", ["int", "int64_t"]);
const MFD_CLOEXEC = 1;
const MFD_ALLOW_SEALING = 2;
const F_ADD_SEALS = 1033;
const F_SEAL_SEAL = 1;
const F_SEAL_SHRINK = 2;
const F_SEAL_GROW = 4;

/** A descriptor of an empty file that nobody else sees, and that grows as it is written. */
export function sharedMemoryFile(name: string): number {
  const fd = uninterrupted(() => nativeMemfdCreate(name, MFD_CLOEXEC));
  if (fd < 0) throw systemCallError("memfd_create");
  return fd;
}

/** A descriptor for `length` bytes of zeroes, which take memory once they are touched. `name` shows in /proc. */
export function sharedMemory(name: string, length: number): number {
  const fd = uninterrupted(() => nativeMemfdCreate(name, MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (fd < 0) throw systemCallError("memfd_create");
  try {
    if (uninterrupted(() => nativeFtruncate(fd, length)) < 0) throw systemCallError("ftruncate");
    fcntl(fd, "F_ADD_SEALS", F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW);
    return fd;
  } catch (error) {
    closeDescriptor(fd);
    throw error;
  }
}
