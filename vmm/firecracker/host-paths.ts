// Whether this host has what a request names: looked at when it is named, opened for good when the guest starts.
import { accessSync, closeSync, constants, existsSync, openSync, readFileSync, statSync } from "node:fs";
import { dirname } from "node:path";
import { errnoText } from "../host/errno-text.js";
import { MAX_UNIX_PATH_BYTES } from "../host/unix-path.js";
import { isLeftOver } from "../sys/sockets.js";
import { Fault } from "./fault.js";

/** Of the network namespace of this process; /sys may be that of another. */
const INTERFACES = "/proc/self/net/dev";

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
  if (existsSync(path) && !isLeftOver(path)) throw new Fault(`${what} ${path}: exists already`);
  try {
    accessSync(dirname(path), constants.W_OK | constants.X_OK);
  } catch (error) {
    throw asFault(error, `${what} ${path}`);
  }
}

/** Throws Fault for a network interface that is not there, where this process is. */
export function checkInterface(name: string): void {
  let interfaces: string;
  try {
    interfaces = readFileSync(INTERFACES, "latin1");
  } catch {
    // It is found out when the guest starts.
    return;
  }
  const names = interfaces.split("\n").flatMap((line) => /^ *([^:]+):/.exec(line)?.[1] ?? []);
  if (names.includes(name)) return;
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
