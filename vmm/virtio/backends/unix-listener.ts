// A server at a path of the host's file system: what is wrong with the path is said at once and in
// words, where Node would tell by an event later on.
import { accessSync, constants, lstatSync, statSync } from "node:fs";
import type { Server } from "node:net";
import { dirname } from "node:path";
import { HostError } from "../../errors.js";

/** `bytes` of sun_path in struct sockaddr_un, less the final zero. */
const MAX_PATH_BYTES = 107;

export interface UnixPath {
  /** What the socket is for, in front of its path in messages. */
  readonly what: string;
  readonly path: string;
  /** `bytes` that other paths made from it are longer. */
  readonly suffixBytes?: number;
}

/** Listens, or throws HostError. The file is gone once the server's `close` has returned. */
export function listenAtPath(server: Server, { what, path, suffixBytes = 0 }: UnixPath): void {
  const name = `${what} ${path}`;
  const length = Buffer.byteLength(path);
  if (length === 0 || length + suffixBytes > MAX_PATH_BYTES) {
    const limit = String(MAX_PATH_BYTES - suffixBytes);
    throw new HostError(`${name}: a path of ${String(length)} bytes; 1 to ${limit} fit`);
  }
  const folder = dirname(path);
  if (statSync(folder, { throwIfNoEntry: false })?.isDirectory() !== true) {
    throw new HostError(`${name}: no such folder: ${folder}`, { cure: `make it: mkdir -p ${folder}` });
  }
  if (lstatSync(path, { throwIfNoEntry: false }) !== undefined) {
    throw new HostError(`${name}: exists already`, { cure: `if no other VM uses it, remove it: rm ${path}` });
  }
  try {
    accessSync(folder, constants.W_OK);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? String(error);
    throw new HostError(`${name}: cannot be made in ${folder} (${code})`, { cause: error });
  }
  // A path, unlike a name to be looked up, is bound within the call; only its error event comes later.
  server.listen(path);
  if (!server.listening) throw new HostError(`${name}: cannot be made`, { cure: `look at ${folder}` });
}
