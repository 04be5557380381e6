// Sockets that Node does not make: socket(2), socketpair(2), and Unix sockets whose file stays ours to remove.
import { closeSync, constants, linkSync, openSync, unlinkSync } from "node:fs";
import { dirname } from "node:path";
import { closeDescriptor, fcntl } from "./descriptors.js";
import { MAX_UNIX_PATH_BYTES } from "../host/unix-path.js";
import { EAGAIN, systemCallError } from "./errno.js";
import { koffi, lazy } from "./koffi.js";

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
  try {
    fcntl(own, "F_SETFL", F_SETFL, O_NONBLOCK);
  } catch (error) {
    for (const fd of pair) closeDescriptor(fd);
    throw error;
  }
  return [own, other];
}

const nativeBind = lazy("bind", "int", ["int", "void *", "uint"]);
const nativeListen = lazy("listen", "int", ["int", "int"]);
const nativeConnect = lazy("connect", "int", ["int", "void *", "uint"]);
/** open(2): a place, not what is there. */
const O_PATH = 0o10000000;
const SOCK_NONBLOCK = 0o4000;
/** Connections that wait to be accepted; the kernel's own limit (net.core.somaxconn) is 4096. */
const BACKLOG = 511;

/** struct sockaddr_un: the family, then the path with its zero. */
function unixAddress(path: string): Uint8Array {
  const bytes = Buffer.from(path);
  if (bytes.length === 0 || bytes.length > MAX_UNIX_PATH_BYTES)
    throw new RangeError(`A path of ${String(bytes.length)} bytes`);
  return Uint8Array.from([AF_UNIX, 0, ...bytes, 0]);
}

function unixSocket(type = SOCK_STREAM): number {
  const fd = nativeSocket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) throw systemCallError("socket");
  return fd;
}

/**
 * A socket that listens at `path`, which it makes; the caller closes it and removes the file. Who sees the file connects at
 * once, and would be refused by a socket that does not listen yet: so it gets its name when it does.
 */
export function listenUnix(path: string): number {
  const folder = openSync(dirname(path), O_PATH | constants.O_DIRECTORY);
  let fd: number | undefined;
  try {
    // Short, whatever the folder's path is; no other name of this process's.
    const early = `/proc/self/fd/${String(folder)}/.${String(process.pid)}-${String(folder)}`;
    fd = bindAndListen(early);
    try {
      linkSync(early, path);
    } finally {
      unlinkSync(early);
    }
    return fd;
  } catch (error) {
    if (fd !== undefined) closeDescriptor(fd);
    if (!isWithoutLinks(error)) throw error;
    return bindAndListen(path);
  } finally {
    closeSync(folder);
  }
}

/** Some file systems have no links, FAT for one. */
function isWithoutLinks(error: unknown): boolean {
  const { code = "", syscall } = error as NodeJS.ErrnoException;
  return syscall === "link" && ["EPERM", "EOPNOTSUPP", "ENOSYS", "EMLINK"].includes(code);
}

function bindAndListen(path: string): number {
  const address = unixAddress(path);
  const fd = unixSocket();
  try {
    // SAFETY: the address is read during the call only; so below.
    if (nativeBind(fd, address, address.length) < 0) throw systemCallError("bind");
    if (nativeListen(fd, BACKLOG) < 0) throw systemCallError("listen");
    return fd;
  } catch (error) {
    closeDescriptor(fd);
    throw error;
  }
}

/** struct sockaddr_in: 127.0.0.1, any port. */
const LOOPBACK_ADDRESS = Uint8Array.from([AF_INET, 0, 0, 0, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);

/** A TCP socket that listens at some port of the loopback, in the network namespace of this thread. Throws SystemCallError. */
export function listenLoopback(): number {
  const fd = nativeSocket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) throw systemCallError("socket");
  try {
    // SAFETY: as above.
    if (nativeBind(fd, LOOPBACK_ADDRESS, LOOPBACK_ADDRESS.length) < 0) throw systemCallError("bind");
    if (nativeListen(fd, BACKLOG) < 0) throw systemCallError("listen");
    return fd;
  } catch (error) {
    closeDescriptor(fd);
    throw error;
  }
}

/** A connection to the program that listens at `path`; it never waits. Throws SystemCallError. */
export function connectUnix(path: string): number {
  return connected(path, SOCK_STREAM);
}

function connected(path: string, type: number): number {
  const address = unixAddress(path);
  const fd = unixSocket(type);
  // SAFETY: as above.
  if (nativeConnect(fd, address, address.length) < 0) {
    const error = systemCallError("connect");
    closeDescriptor(fd);
    throw error;
  }
  return fd;
}

/** A socket for messages at `path`, which it makes; the caller closes it and removes the file. Throws SystemCallError. */
export function bindDatagrams(path: string): number {
  const address = unixAddress(path);
  const fd = unixSocket(SOCK_DGRAM);
  // SAFETY: as above.
  if (nativeBind(fd, address, address.length) < 0) {
    const error = systemCallError("bind");
    closeDescriptor(fd);
    throw error;
  }
  return fd;
}

/** A socket whose messages go to the one at `path`; it never waits. Throws SystemCallError. */
export function connectDatagrams(path: string): number {
  return connected(path, SOCK_DGRAM);
}

/** Whether a program listens at `path`. The connection that tells is closed at once. */
export function isListening(path: string): boolean {
  const address = unixAddress(path);
  const fd = unixSocket();
  try {
    // EAGAIN: the queue of connections is full, so there is a listener.
    return nativeConnect(fd, address, address.length) === 0 || koffi.errno() === EAGAIN;
  } finally {
    closeDescriptor(fd);
  }
}
