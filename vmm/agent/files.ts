// Files of the guest, one request of the agent's protocol a method. Paths are absolute; a string stands for its UTF-8.
import type { Readable, Writable } from "node:stream";
import { AgentError, ConfigError, GuestRequestError } from "../errors.js";
import { ByteQueue } from "./byte-queue.js";
import type { AgentConnection } from "./connection.js";
import * as requests from "./file-requests.js";
import { decodeStat, typeBits, type FileStat, type FileType } from "./file-stat.js";
import * as frames from "./frames.js";
import { bytesOf, shown, type GuestBytes } from "./guest-bytes.js";
import { ENOENT } from "./guest-errors.js";
import { InputPump, type CommandInput } from "./input-pump.js";
import { InputStream } from "./input-stream.js";
import { ListDecoder, type FolderEntry } from "./list-decoder.js";
import { OutputStream } from "./output-stream.js";
import { ask, makeRequest, type RequestOptions } from "./request.js";
import { sortedByName } from "./sorted-names.js";
import type { AgentStream, StreamRequest } from "./stream.js";

export interface ReadOptions extends RequestOptions {
  /** Where to begin, `bytes`. */
  readonly offset?: number;
  /** How many bytes; otherwise to the end. */
  readonly length?: number;
  /** False: a path that is a symbolic link is refused. */
  readonly follow?: boolean;
}

export interface ReadWholeOptions extends ReadOptions {
  /** A file that has more is refused, `bytes`. */
  readonly maxBytes?: number;
}

export interface WriteOptions extends RequestOptions {
  /** Of a file that is made; with `setMode` of one that is there, too. */
  readonly mode?: number;
  readonly setMode?: boolean;
  readonly owner?: requests.Owner;
  /** What is there stays, and the content comes behind it. */
  readonly append?: boolean;
  /** What is there stays; the content overwrites from here on, `bytes`. */
  readonly offset?: number;
  /** A file that is there is refused. */
  readonly exclusive?: boolean;
  /** False: a path that is a symbolic link is refused. */
  readonly follow?: boolean;
}

export interface MkdirOptions extends RequestOptions {
  readonly mode?: number;
  readonly owner?: requests.Owner;
  /** Folders above are made, and one that is there is no error. */
  readonly parents?: boolean;
}

export interface ListOptions extends RequestOptions {
  /** A folder with more is refused: `bytes` of its list, some 70 and the name an entry. */
  readonly maxBytes?: number;
  /** False: a path that is a symbolic link is refused. */
  readonly follow?: boolean;
}

export interface RemoveOptions extends RequestOptions {
  /** A folder goes with all that is in it; links are not followed. */
  readonly tree?: boolean;
  /** What is not there is no error. */
  readonly force?: boolean;
}

/** Enough for what a program reads as one piece. */
const MAX_READ = 64 * 2 ** 20;
/** Of a folder, as bytes of its list. */
const MAX_LIST = 64 * 2 ** 20;
const FILE_MODE = 0o644;
const FOLDER_MODE = 0o755;
const MAX_LINK = 4095;

export class GuestFiles {
  readonly #connection: AgentConnection;

  constructor(connection: AgentConnection) {
    this.#connection = connection;
  }

  /** A file's content. Rejects if it has more than `maxBytes`. */
  async read(path: GuestBytes, options: ReadWholeOptions = {}): Promise<Buffer> {
    const { maxBytes = MAX_READ } = options;
    const queue = new ByteQueue();
    const seen = { isTooLarge: false };
    const { stream, answer } = this.#openRead(path, options, (bytes) => {
      stream.consumed(1, bytes.length);
      seen.isTooLarge ||= queue.length + bytes.length > maxBytes;
      if (seen.isTooLarge) stream.cancel();
      else queue.push(bytes);
    });
    await answer.catch((error: unknown) => {
      if (!seen.isTooLarge) throw error;
    });
    if (seen.isTooLarge) {
      throw new ConfigError([
        `${shown(path)} has more than ${String(maxBytes)} bytes: read it as a stream, or raise maxBytes`,
      ]);
    }
    const pieces: Buffer[] = [];
    for (let piece = queue.shift(); piece !== undefined; piece = queue.shift()) pieces.push(piece);
    return Buffer.concat(pieces);
  }

  /** A file's content as UTF-8. */
  async readText(path: GuestBytes, options: ReadWholeOptions = {}): Promise<string> {
    return (await this.read(path, options)).toString("utf8");
  }

  /** A file's content as a stream. Destroying it gives up the rest. */
  readStream(path: GuestBytes, options: ReadOptions = {}): Readable {
    const output: OutputStream = new OutputStream(
      (count) => {
        stream.consumed(1, count);
      },
      () => {
        stream.cancel();
      },
    );
    const { stream, answer } = this.#openRead(path, options, (bytes) => {
      output.receive(bytes);
    });
    answer.then(
      () => {
        output.finish();
      },
      (error: unknown) => output.destroy(error instanceof Error ? error : undefined),
    );
    return output;
  }

  /** Makes a file, or replaces what is in it, unless the options say otherwise. */
  async write(path: GuestBytes, content: CommandInput, options: WriteOptions = {}): Promise<void> {
    const under: { pump?: InputPump; problem?: { readonly error: unknown } } = {};
    const { stream, answer } = this.#openWrite(path, options, () => under.pump?.resume());
    under.pump = new InputPump(content, stream, (error) => {
      under.problem = { error };
      stream.cancel();
    });
    try {
      await answer.catch((error: unknown) => {
        if (under.problem === undefined) throw error;
      });
    } finally {
      under.pump.stop();
    }
    if (under.problem !== undefined) throw under.problem.error;
  }

  /** As `write`; it has finished once the guest has written all. Destroying it gives up the rest. */
  writeStream(path: GuestBytes, options: WriteOptions = {}): Writable {
    const { stream, answer } = this.#openWrite(path, options, () => {
      input.resumeWriting();
    });
    const target = {
      write: (bytes: Uint8Array) => stream.write(bytes),
      end: () => {
        stream.end();
      },
      abandon: () => {
        stream.cancel();
      },
    };
    const input: InputStream = new InputStream(target, answer);
    answer.catch((error: unknown) => input.destroy(error instanceof Error ? error : undefined));
    return input;
  }

  /** What is at the path; a symbolic link is followed. */
  async stat(path: GuestBytes, options: RequestOptions = {}): Promise<FileStat> {
    return await this.#stat(path, requests.FOLLOW, options);
  }

  /** The same of a link itself. */
  async lstat(path: GuestBytes, options: RequestOptions = {}): Promise<FileStat> {
    return await this.#stat(path, 0, options);
  }

  /** Whether something is at the path; a link that leads nowhere is nothing. */
  async exists(path: GuestBytes, options: RequestOptions = {}): Promise<boolean> {
    try {
      await this.stat(path, options);
      return true;
    } catch (error) {
      if (error instanceof GuestRequestError && (error.errno === ENOENT || error.errno === ENOTDIR)) return false;
      throw error;
    }
  }

  /** The entries of a folder in the order of their names' bytes. Rejects if there are too many. */
  async list(path: GuestBytes, options: ListOptions = {}): Promise<FolderEntry[]> {
    const { maxBytes = MAX_LIST } = options;
    const entries: FolderEntry[] = [];
    let length = 0;
    await this.#list(path, options, (found, bytes, stream) => {
      length += bytes;
      if (length <= maxBytes) for (const entry of found) entries.push(entry);
      else stream.cancel();
    }).catch((error: unknown) => {
      if (length <= maxBytes) throw error;
    });
    if (length > maxBytes) throw new ConfigError([`${shown(path)} has more than ${String(maxBytes)} bytes of entries`]);
    return sortedByName(entries);
  }

  async mkdir(path: GuestBytes, options: MkdirOptions = {}): Promise<void> {
    const flags = options.parents === true ? requests.PARENTS : 0;
    const payload = requests.encodeMkdir(flags, options.mode ?? FOLDER_MODE, options.owner, path);
    await ask(this.#connection, frames.MKDIR, payload, `make ${shown(path)}`, options);
  }

  /** A file, an empty folder, or with `tree` a folder with all that is in it. Links are not followed. */
  async remove(path: GuestBytes, options: RemoveOptions = {}): Promise<void> {
    const flags = (options.tree === true ? requests.TREE : 0) | (options.force === true ? requests.FORCE : 0);
    await ask(this.#connection, frames.REMOVE, requests.encodePath(flags, path), `remove ${shown(path)}`, options);
  }

  async rename(path: GuestBytes, newPath: GuestBytes, options: RequestOptions = {}): Promise<void> {
    const what = `rename ${shown(path)} to ${shown(newPath)}`;
    await ask(this.#connection, frames.RENAME, requests.encodeRename(path, newPath), what, options);
  }

  /** Another name for the file `target`. */
  async link(target: GuestBytes, path: GuestBytes, options: RequestOptions = {}): Promise<void> {
    await ask(this.#connection, frames.LINK, requests.encodeLink(false, target, path), `link ${shown(path)}`, options);
  }

  async symlink(target: GuestBytes, path: GuestBytes, options: RequestOptions = {}): Promise<void> {
    const payload = requests.encodeLink(true, target, path);
    await ask(this.#connection, frames.LINK, payload, `link ${shown(path)}`, options);
  }

  /** A symbolic link's target as UTF-8; as bytes: `readlinkBytes`. */
  async readlink(path: GuestBytes, options: RequestOptions = {}): Promise<string> {
    return (await this.readlinkBytes(path, options)).toString("utf8");
  }

  async readlinkBytes(path: GuestBytes, options: RequestOptions = {}): Promise<Buffer> {
    const what = `read link ${shown(path)}`;
    const request = { type: frames.READLINK, payload: requests.encodePath(0, path), what, outputs: 0 } as const;
    const decode = (payload: Buffer): Buffer => {
      const target = payload.at(-1) === 0 ? payload.subarray(0, -1) : payload;
      if (target.length > MAX_LINK || target.includes(0)) {
        throw new AgentError("protocol", `The guest's agent has sent a link that is none: ${what}`);
      }
      return Buffer.from(target);
    };
    return await makeRequest(this.#connection, request, decode, options).answer;
  }

  /** Sets what is given. Links are followed unless `follow` is false. */
  async setAttributes(
    path: GuestBytes,
    attributes: requests.Attributes,
    options: RequestOptions & { readonly follow?: boolean } = {},
  ): Promise<void> {
    const { size, times, ...rest } = attributes;
    const set = (some: requests.Attributes): Promise<void> => {
      const payload = requests.encodeSetAttributes(options.follow !== false, some, path);
      return ask(this.#connection, frames.SETATTR, payload, `change ${shown(path)}`, options);
    };
    // Both lie in the same field of the request.
    if (size !== undefined && times !== undefined) await set({ size });
    await set(times === undefined ? { ...rest, size } : { ...rest, times });
  }

  /** A device node, a FIFO or a socket. */
  async mknod(
    path: GuestBytes,
    type: Extract<FileType, "character-device" | "block-device" | "fifo" | "socket">,
    options: RequestOptions & { readonly mode?: number; readonly major?: number; readonly minor?: number } = {},
  ): Promise<void> {
    const mode = typeBits(type) | (options.mode ?? FILE_MODE);
    const payload = requests.encodeMknod(mode, options.major ?? 0, options.minor ?? 0, path);
    await ask(this.#connection, frames.MKNOD, payload, `make ${shown(path)}`, options);
  }

  #stat(path: GuestBytes, flags: number, options: RequestOptions): Promise<FileStat> {
    const what = `stat ${shown(path)}`;
    const request = { type: frames.STAT, payload: requests.encodePath(flags, path), what, outputs: 0 } as const;
    return makeRequest(this.#connection, request, (payload) => decodeStat(payload, what), options).answer;
  }

  #list(
    path: GuestBytes,
    options: ListOptions,
    onEntries: (entries: FolderEntry[], bytes: number, stream: AgentStream) => void,
  ): Promise<void> {
    const what = `list ${shown(path)}`;
    const request: StreamRequest = {
      type: frames.LIST,
      payload: requests.encodePath(options.follow === false ? 0 : requests.FOLLOW, path),
      what,
      outputs: 1,
    };
    const decoder = new ListDecoder(what);
    const { stream, answer } = makeRequest(
      this.#connection,
      request,
      () => {
        decoder.finish();
      },
      options,
      {
        onData: (_output, bytes) => {
          stream.consumed(1, bytes.length);
          onEntries(decoder.push(bytes), bytes.length, stream);
        },
      },
    );
    return answer;
  }

  #openRead(
    path: GuestBytes,
    options: ReadOptions,
    onData: (bytes: Buffer) => void,
  ): { stream: AgentStream; answer: Promise<FileStat> } {
    const what = `read ${shown(path)}`;
    const { offset = 0, length } = options;
    checkCount("offset", offset);
    if (length !== undefined) checkCount("length", length);
    const count = length === undefined ? requests.TO_THE_END : BigInt(length);
    const flags = options.follow === false ? 0 : requests.FOLLOW;
    const payload = requests.encodeRead(flags, BigInt(offset), count, path);
    let left = length ?? Infinity;
    return makeRequest(
      this.#connection,
      { type: frames.READ, payload, what, outputs: 1 },
      (answer) => decodeStat(answer, what),
      options,
      {
        onData: (_output, bytes) => {
          left -= bytes.length;
          if (left < 0) throw new AgentError("protocol", `The guest's agent has sent more than was asked for: ${what}`);
          onData(bytes);
        },
      },
    );
  }

  #openWrite(
    path: GuestBytes,
    options: WriteOptions,
    onWritable: () => void,
  ): { stream: AgentStream; answer: Promise<void> } {
    const { offset, append = false, owner, mode = FILE_MODE } = options;
    checkCount("offset", offset ?? 0);
    const flags =
      requests.CREATE |
      (options.follow === false ? 0 : requests.FOLLOW) |
      (options.exclusive === true ? requests.EXCLUSIVE : 0) |
      (append ? requests.APPEND : offset === undefined ? requests.TRUNCATE : 0) |
      (options.setMode === true ? requests.MODE : 0);
    const payload = requests.encodeWrite(flags, mode, owner, BigInt(offset ?? 0), path);
    const request = { type: frames.WRITE, payload, what: `write ${shown(path)}`, outputs: 0, hasInput: true } as const;
    return makeRequest(this.#connection, request, () => undefined, options, { onWritable });
  }
}

const ENOTDIR = 20;

function checkCount(name: string, value: number): void {
  if (!Number.isSafeInteger(value) || value < 0) {
    throw new ConfigError([`${name}: ${String(value)} is not a number of bytes`]);
  }
}

/** `folder` and a name in it. */
export function joined(folder: GuestBytes, name: GuestBytes): Buffer {
  const bytes = bytesOf(folder);
  const separator = bytes.at(-1) === 0x2f ? "" : "/";
  return Buffer.concat([bytes, Buffer.from(separator), bytesOf(name)]);
}
