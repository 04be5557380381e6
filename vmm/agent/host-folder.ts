// A folder of the host, held by its descriptor: what is done in it stays in it, even if somebody else, such as a guest that
// shares the folder, puts a link in the place of a name meanwhile. /proc/self/fd/N/NAME is what openat(2) would be.
import { constants, type BigIntStats } from "node:fs";
import {
  lstat,
  lutimes,
  lchown,
  mkdir,
  open,
  readdir,
  readlink,
  symlink,
  unlink,
  type FileHandle,
} from "node:fs/promises";

const { O_CREAT, O_DIRECTORY, O_EXCL, O_NOFOLLOW, O_NONBLOCK, O_RDONLY, O_WRONLY } = constants;
const NEW_FILE = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW;

/** Seconds since 1970. */
export interface Times {
  readonly atime: number;
  readonly mtime: number;
}

export class HostFolder {
  readonly #handle: FileHandle;
  readonly #prefix: Buffer;

  private constructor(handle: FileHandle) {
    this.#handle = handle;
    this.#prefix = Buffer.from(`/proc/self/fd/${String(handle.fd)}/`);
  }

  /** A folder that the user has named: links on the way are followed. */
  static async open(path: string | Buffer): Promise<HostFolder> {
    return new HostFolder(await open(path, O_RDONLY | O_DIRECTORY));
  }

  #at(name: Buffer): Buffer {
    return Buffer.concat([this.#prefix, name]);
  }

  /** A folder in this one; ELOOP or ENOTDIR for a link. */
  async child(name: Buffer): Promise<HostFolder> {
    return new HostFolder(await open(this.#at(name), O_RDONLY | O_DIRECTORY | O_NOFOLLOW));
  }

  names(): Promise<Buffer[]> {
    return readdir(this.#prefix, { encoding: "buffer" });
  }

  /** Of a name in it, links not followed. */
  lstat(name: Buffer): Promise<BigIntStats> {
    return lstat(this.#at(name), { bigint: true });
  }

  stat(): Promise<BigIntStats> {
    return this.#handle.stat({ bigint: true });
  }

  readlink(name: Buffer): Promise<Buffer> {
    return readlink(this.#at(name), { encoding: "buffer" });
  }

  /** To be read; a link is refused, and a FIFO does not wait for its writer. */
  openFile(name: Buffer): Promise<FileHandle> {
    return open(this.#at(name), O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  }

  /** A file that is not there yet. */
  createFile(name: Buffer): Promise<FileHandle> {
    return open(this.#at(name), NEW_FILE, 0o600);
  }

  mkdir(name: Buffer): Promise<unknown> {
    return mkdir(this.#at(name), { mode: 0o700 });
  }

  symlink(target: Buffer, name: Buffer): Promise<void> {
    return symlink(target, this.#at(name));
  }

  unlink(name: Buffer): Promise<void> {
    return unlink(this.#at(name));
  }

  /** Of a link itself. */
  async setLink(
    name: Buffer,
    { atime, mtime }: Times,
    owner?: { readonly uid: number; readonly gid: number },
  ): Promise<void> {
    if (owner !== undefined) await lchown(this.#at(name), owner.uid, owner.gid);
    await lutimes(this.#at(name), atime, mtime);
  }

  /** Its own attributes. */
  async set(
    mode: number,
    { atime, mtime }: Times,
    owner?: { readonly uid: number; readonly gid: number },
  ): Promise<void> {
    if (owner !== undefined) await this.#handle.chown(owner.uid, owner.gid);
    await this.#handle.chmod(mode);
    await this.#handle.utimes(atime, mtime);
  }

  close(): Promise<void> {
    return this.#handle.close();
  }
}
