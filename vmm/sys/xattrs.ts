// Extended attributes of a file, which Node does not read: llistxattr(2), lgetxattr(2).
import { EOPNOTSUPP, systemCallError, uninterrupted } from "./errno.js";
import { koffi, lazy } from "./koffi.js";

const nativeList = lazy("llistxattr", "int64_t", ["void *", "void *", "size_t"]);
const nativeGet = lazy("lgetxattr", "int64_t", ["void *", "void *", "void *", "size_t"]);
/** linux/limits.h: XATTR_LIST_MAX, XATTR_SIZE_MAX. */
const MAX_LIST = 65_536;
const MAX_VALUE = 65_536;
const ENODATA = 61;

let list: Buffer | undefined;
let value: Buffer | undefined;

/** Names and values, one character a byte; of a symlink its own. Throws SystemCallError. `path`: its bytes. */
export function readXattrs(path: Buffer): (readonly [name: string, value: string])[] {
  const ended = Buffer.concat([path, Buffer.of(0)]);
  const names = (list ??= Buffer.alloc(MAX_LIST));
  // SAFETY: both buffers live through the call, and MAX_LIST bytes may be written.
  const length = uninterrupted(() => nativeList(ended, names, MAX_LIST));
  if (length < 0) {
    if (koffi.errno() === EOPNOTSUPP) return [];
    throw systemCallError("llistxattr");
  }
  return names
    .toString("latin1", 0, length)
    .split("\0")
    .filter((name) => name !== "")
    .flatMap((name) => {
      const text = valueOf(ended, name);
      return text === undefined ? [] : [[name, text] as const];
    });
}

/** Undefined if it has gone meanwhile. */
function valueOf(path: Buffer, name: string): string | undefined {
  const bytes = (value ??= Buffer.alloc(MAX_VALUE));
  const ended = Buffer.from(`${name}\0`, "latin1");
  // SAFETY: as above.
  const length = uninterrupted(() => nativeGet(path, ended, bytes, MAX_VALUE));
  if (length >= 0) return bytes.toString("latin1", 0, length);
  if (koffi.errno() === ENODATA || koffi.errno() === EOPNOTSUPP) return undefined;
  throw systemCallError("lgetxattr");
}
