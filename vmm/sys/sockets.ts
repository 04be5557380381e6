// Sockets that Node does not make: socket(2), socketpair(2).
import { systemCallError } from "./errno.js";
import { lazy } from "./koffi.js";

const nativeFcntlNumber = lazy("fcntl", "int", ["int", "int", "int64_t"]);
const nativeSocketpair = lazy("socketpair", "int", ["int", "int", "int", "void *"]);
const nativeSocket = lazy("socket", "int", ["int", "int", "int"]);
const AF_INET = 2;
const SOCK_DGRAM = 2;
const SOCK_CLOEXEC = 0o2000000;

/** A socket that network interfaces are configured through; it carries nothing. */
export function interfaceSocket(): number {
  const fd = nativeSocket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) throw systemCallError("socket");
  return fd;
}

const AF_UNIX = 1;
const SOCK_STREAM = 1;
const F_SETFL = 4;
const O_NONBLOCK = 0o4000;

/** Two ends of a stream; the first one never waits. Both go when this process starts another program. */
export function streamPair(): readonly [own: number, other: number] {
  const pair = new Int32Array(2);
  // SAFETY: two ints of this buffer, written during this call only.
  if (nativeSocketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) throw systemCallError("socketpair");
  const [own = -1, other = -1] = pair;
  if (nativeFcntlNumber(own, F_SETFL, O_NONBLOCK) < 0) throw systemCallError("F_SETFL");
  return [own, other];
}
