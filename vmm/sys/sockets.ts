// Sockets that Node does not make: socket(2), socketpair(2), and Unix sockets whose file stays ours to remove.
import { closeSync, constants, linkSync, lstatSync, openSync, renameSync, rmSync, unlinkSync } from "node:fs";
import { dirname } from "node:path";
import { closeDescriptor, fcntl } from "./descriptors.js";
import { MAX_UNIX_PATH_BYTES } from "../host/unix-path.js";
import { ECONNREFUSED, systemCallError } from "./errno.js";
import { koffi, lazy } from "./koffi.js";
import { lockWhole } from "./locks.js";

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
const nativeGetsockname = lazy("getsockname", "int", ["int", "void *", "void *"]);
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
 * once, and would be refused by a socket that does not listen yet: so it gets its name when it does. A socket file that a
 * killed process has left there goes with that; anything else stays, and this throws EEXIST.
 */
export function listenUnix(path: string): number {
  const folder = lockFolder(dirname(path));
  let fd: number | undefined;
  try {
    const early = folder === undefined ? undefined : earlyName(folder);
    if (early === undefined) return bindAndListen(path);
    fd = bindAndListen(early);
    giveName(early, path);
    return fd;
  } catch (error) {
    if (fd !== undefined) closeDescriptor(fd);
    if (!isWithoutLinks(error)) throw error;
    return bindAndListen(path);
  } finally {
    if (folder !== undefined) closeSync(folder);
  }
}

/** How long another process that makes a socket in the folder is waited for, `ms`. */
const LOCK_TRIES = 50;
const LOCK_LOOK_MS = 1;

/** For this process alone; undefined where it cannot be opened, or somebody keeps it locked. */
function lockFolder(path: string): number | undefined {
  let fd: number;
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY);
  } catch (error) {
    // To read it is a right that nobody needs to make a file in it.
    if ((error as NodeJS.ErrnoException).code === "EACCES") return undefined;
    throw error;
  }
  const sleeping = new Int32Array(new SharedArrayBuffer(4));
  for (let tries = 0; tries < LOCK_TRIES; tries++) {
    if (lockWhole(fd)) return fd;
    Atomics.wait(sleeping, 0, 0, LOCK_LOOK_MS);
  }
  closeSync(fd);
  return undefined;
}

/**
 * Short, whatever the folder's path is. Whoever has locked the folder has the name: what is there is of a process that was
 * killed. Undefined if it cannot be removed.
 */
function earlyName(folder: number): string | undefined {
  const name = `/proc/self/fd/${String(folder)}/.vmlet-${String(process.geteuid?.() ?? 0)}`;
  try {
    rmSync(name, { force: true });
    return name;
  } catch {
    return undefined;
  }
}

function giveName(early: string, path: string): void {
  try {
    if (isLeftOver(path)) {
      renameSync(early, path);
      return;
    }
  } catch {
    // In a folder as /tmp is, it may be another user's: then it is there, as anything else.
  }
  try {
    linkSync(early, path);
  } finally {
    unlinkSync(early);
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
  return connectTo(address, address.length, type);
}

function connectTo(address: Uint8Array, length: number, type: number): number {
  const fd = unixSocket(type);
  // SAFETY: as above.
  if (nativeConnect(fd, address, length) < 0) {
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

/** Whether a socket is at `path` at which surely nobody listens. */
export function isLeftOver(path: string): boolean {
  if (lstatSync(path, { throwIfNoEntry: false })?.isSocket() !== true) return false;
  const address = unixAddress(path);
  const fd = unixSocket();
  try {
    // SAFETY: as above.
    return nativeConnect(fd, address, address.length) < 0 && koffi.errno() === ECONNREFUSED;
  } finally {
    closeDescriptor(fd);
  }
}

/** struct sockaddr_un, and a socklen_t behind it. */
const ADDRESS_BYTES = 112;
/** Somebody who connects to whatever there is has to be faster each time. */
const PAIR_TRIES = 100;

/**
 * A listening socket, and the connection that it accepts first. It has a name that the kernel gives (unix(7), autobind), and no
 * file: nothing is left of it, however this process ends. The queue holds one connection, so that nobody else's is in front
 * of ours. Throws SystemCallError.
 */
export function listenerWithConnection(): readonly [connection: number, listener: number] {
  for (let tries = 0; ; tries++) {
    const listener = unixSocket();
    try {
      const address = new Uint8Array(ADDRESS_BYTES + 4);
      const length = new DataView(address.buffer, ADDRESS_BYTES);
      address[0] = AF_UNIX;
      // SAFETY: an address of the family alone, read during the call.
      if (nativeBind(listener, address, 2) < 0) throw systemCallError("bind");
      if (nativeListen(listener, 0) < 0) throw systemCallError("listen");
      length.setUint32(0, ADDRESS_BYTES, true);
      // SAFETY: room for an address and its length, written during the call.
      if (nativeGetsockname(listener, address, length) < 0) throw systemCallError("getsockname");
      return [connectTo(address, length.getUint32(0, true), SOCK_STREAM), listener];
    } catch (error) {
      closeDescriptor(listener);
      if ((error as { errnoName?: unknown }).errnoName !== "EAGAIN" || tries >= PAIR_TRIES) throw error;
    }
  }
}
