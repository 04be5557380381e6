// Whether this host has what a request names: looked at when it is named, opened for good when the guest starts.
import { accessSync, closeSync, constants, existsSync, openSync, statSync } from "node:fs";
import { dirname } from "node:path";
import { errnoText } from "../host/errno-text.js";
import { MAX_UNIX_PATH_BYTES } from "../host/unix-path.js";
import { Fault } from "./fault.js";

const INTERFACES = "/sys/class/net";

/** Throws Fault for a file that cannot be read, or written. */
export function checkFile(path: string, what: string, access: "read" | "write"): void {
  try {
    const flags = access === "read" ? constants.O_RDONLY : constants.O_RDWR;
    // Of a FIFO nobody waits for the other end.
    closeSync(openSync(path, flags | constants.O_NONBLOCK | constants.O_NOCTTY));
    if (statSync(path).isDirectory()) throw new Fault(`${what} ${path}: a folder`);
  } catch (error) {
    throw asFault(error, `${what} ${path}`);
  }
}

/** Throws Fault where no socket can be made. */
export function checkSocketPath(path: string, what: string): void {
  const bytes = Buffer.byteLength(path);
  if (bytes > MAX_UNIX_PATH_BYTES) {
    throw new Fault(`${what} ${path}: ${String(bytes)} bytes; ${String(MAX_UNIX_PATH_BYTES)} fit`);
  }
  if (existsSync(path)) throw new Fault(`${what} ${path}: exists already`);
  try {
    accessSync(dirname(path), constants.W_OK | constants.X_OK);
  } catch (error) {
    throw asFault(error, `${what} ${path}`);
  }
}

/** Throws Fault for a network interface that this host does not have, as far as can be seen from here. */
export function checkInterface(name: string): void {
  if (!existsSync(INTERFACES) || existsSync(`${INTERFACES}/${name}`)) return;
  throw new Fault(
    `Network interface: this host has no interface ${name}; ip tuntap add dev ${name} mode tap makes one`,
  );
}

export function asFault(error: unknown, what: string): Fault {
  if (error instanceof Fault) return error;
  const { code } = error as { readonly code?: string };
  if (code === undefined) throw error;
  return new Fault(`${what}: ${errnoText(code)}`);
}
