// A server at a path of the host's file system. The socket is bound here and not by Node, which would
// remove whatever is at the path when the server closes, another's socket too; and what is wrong with the
// path is said at once and in words, where Node would tell by an event later on.
import { closeSync, constants, fstatSync, lstatSync, openSync, statSync, unlinkSync } from "node:fs";
import type { Server } from "node:net";
import { dirname } from "node:path";
import { HostError, SystemCallError } from "../../errors.js";
import { errnoText } from "../../host/errno-text.js";
import { shellWord } from "../../host/shell-word.js";
import { MAX_UNIX_PATH_BYTES } from "../../host/unix-path.js";
import { kickAtInput } from "../../sys/input-kick.js";
import { processSeal } from "../../sys/process-seal.js";
import { isLeftOver, listenUnix } from "../../sys/sockets.js";

/** open(2): a file without access to what is in it. */
const O_PATH = 0o10000000;

export interface UnixPath {
  /** What the socket is for, in front of its path in messages. */
  readonly what: string;
  readonly path: string;
  /** `bytes` that other paths made from it are longer. */
  readonly suffixBytes?: number;
  /** Who connects need not wait until a guest that this thread runs lets it go. */
  readonly interrupts?: boolean;
}

/** A socket at its path: who connects waits until a server takes it over. */
export class BoundSocket {
  readonly #path: string;
  readonly #fd: number;
  /** As long as it is open, no other file gets its inode number. */
  #own: number | undefined;

  constructor(path: string, fd: number) {
    this.#path = path;
    this.#fd = fd;
    this.#own = openSync(path, O_PATH | constants.O_NOFOLLOW);
  }

  /** The result removes the socket file, if it is still this one. */
  serve(server: Server): () => void {
    server.listen({ fd: this.#fd });
    return () => {
      this.#remove();
    };
  }

  /** Of one that no server has taken over. */
  close(): void {
    closeSync(this.#fd);
    this.#remove();
  }

  #remove(): void {
    // Whoever is outside of the jail does it.
    if (this.#own !== undefined && !processSeal.isSealed) removeOwn(this.#path, this.#own);
    this.#own = undefined;
  }
}

/** Listens, also in place of a socket file that a killed process has left; or throws HostError. */
export function bindAtPath({ what, path, suffixBytes = 0, interrupts = false }: UnixPath): BoundSocket {
  const name = `${what} ${path}`;
  const length = Buffer.byteLength(path);
  if (length === 0 || length + suffixBytes > MAX_UNIX_PATH_BYTES) {
    const limit = String(MAX_UNIX_PATH_BYTES - suffixBytes);
    throw new HostError(`${name}: a path of ${String(length)} bytes; 1 to ${limit} fit`);
  }
  try {
    const folder = dirname(path);
    const stat = statSync(folder, { throwIfNoEntry: false });
    if (stat?.isDirectory() === false) throw new HostError(`${name}: ${folder} is not a folder`);
    if (stat === undefined) {
      throw new HostError(`${name}: no such folder: ${folder}`, { cure: `make it: mkdir -p ${shellWord(folder)}` });
    }
    const fd = listenUnix(path);
    if (interrupts) kickAtInput(fd);
    return new BoundSocket(path, fd);
  } catch (error) {
    if (error instanceof HostError) throw error;
    const code = error instanceof SystemCallError ? error.errnoName : ((error as NodeJS.ErrnoException).code ?? "");
    if (code === "EEXIST" || code === "EADDRINUSE") {
      throw new HostError(`${name}: exists already`, { cause: error, cure: cureFor(path) });
    }
    throw new HostError(`${name}: cannot be made: ${errnoText(code)}`, { cause: error });
  }
}

/** Listens, or throws HostError. The result removes the socket file, if it is still this one. */
export function listenAtPath(server: Server, path: UnixPath): () => void {
  return bindAtPath(path).serve(server);
}

/** Nobody but the owner (and root) connects to a socket that only the owner may write to. */
const OWNER_ONLY_UMASK = 0o177;

/** The same as bindAtPath, for programs of this user alone. */
export function bindForOwner(path: UnixPath): BoundSocket {
  const umask = process.umask(OWNER_ONLY_UMASK);
  try {
    return bindAtPath(path);
  } finally {
    process.umask(umask);
  }
}

/** Where a server is to listen, or does already. */
export type ListenPlace = UnixPath | BoundSocket;

/** The same as listenAtPath, for programs of this user alone. */
export function listenForOwner(server: Server, place: ListenPlace): () => void {
  return (place instanceof BoundSocket ? place : bindForOwner(place)).serve(server);
}

/** What a killed process has left is no hindrance, unless this one has not the right to remove it. */
function cureFor(path: string): string {
  if (lstatSync(path, { throwIfNoEntry: false })?.isSocket() === false)
    return "it is no socket: give a path that is free";
  return isLeftOver(path)
    ? `nobody listens there any more: rm ${shellWord(path)}`
    : "another program listens there: give a path that is free";
}

/** Another program may have taken the path since. */
function removeOwn(path: string, own: number): void {
  try {
    const now = lstatSync(path, { bigint: true, throwIfNoEntry: false });
    const { ino, dev } = fstatSync(own, { bigint: true });
    if (now?.ino === ino && now.dev === dev) unlinkSync(path);
  } catch {
    // The folder has gone, or is no longer ours to write to: what is left there is beyond us.
  } finally {
    closeSync(own);
  }
}
