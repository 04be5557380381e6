// The entries of a folder of the guest, from the bytes of LIST.
import { AgentError } from "../errors.js";
import { decodeStat, STAT_BYTES, type FileStat } from "./file-stat.js";
import { SLASH } from "./guest-bytes.js";

export interface FolderEntry extends FileStat {
  /** As UTF-8; `nameBytes` where that matters. */
  readonly name: string;
  readonly nameBytes: Buffer;
  /** Of a symbolic link. */
  readonly target: Buffer | undefined;
}

const LENGTHS_BYTES = 4;
const HEAD_BYTES = LENGTHS_BYTES + STAT_BYTES;
const MAX_NAME = 255;
const MAX_TARGET = 4095;

export class ListDecoder {
  readonly #what: string;
  /** The beginning of an entry whose end has not come. */
  #rest: Buffer = Buffer.alloc(0);

  constructor(what: string) {
    this.#what = what;
  }

  /** The entries that are whole now. Throws AgentError for what no folder holds. */
  push(bytes: Buffer): FolderEntry[] {
    // An entry is small, so what is copied again is less than one a frame.
    const all = this.#rest.length === 0 ? bytes : Buffer.concat([this.#rest, bytes]);
    const entries: FolderEntry[] = [];
    let at = 0;
    while (all.length - at >= LENGTHS_BYTES) {
      const length = all.readUInt16LE(at);
      if (length < HEAD_BYTES || length > HEAD_BYTES + MAX_NAME + MAX_TARGET)
        throw this.#lie(`an entry of ${String(length)} bytes`);
      if (all.length - at < length) break;
      entries.push(this.#entry(Buffer.from(all.subarray(at, at + length))));
      at += length;
    }
    this.#rest = Buffer.from(all.subarray(at));
    return entries;
  }

  /** Throws AgentError unless the last entry was whole. */
  finish(): void {
    if (this.#rest.length > 0) throw this.#lie("an entry that is cut");
  }

  #entry(bytes: Buffer): FolderEntry {
    const nameLength = bytes.readUInt16LE(2);
    if (nameLength > bytes.length - HEAD_BYTES || nameLength > MAX_NAME)
      throw this.#lie("a name longer than its entry");
    const nameBytes = bytes.subarray(HEAD_BYTES, HEAD_BYTES + nameLength);
    const target = bytes.subarray(HEAD_BYTES + nameLength);
    if (!isName(nameBytes)) throw this.#lie("a name that is none");
    const stat = decodeStat(bytes.subarray(LENGTHS_BYTES, HEAD_BYTES), this.#what);
    if (target.includes(0) || (target.length > 0 && stat.type !== "symlink")) throw this.#lie("a link that is none");
    return {
      ...stat,
      name: nameBytes.toString("utf8"),
      nameBytes,
      target: stat.type === "symlink" ? target : undefined,
    };
  }

  #lie(what: string): AgentError {
    return new AgentError("protocol", `The guest's agent has sent ${what}: ${this.#what}`);
  }
}

/** What a folder of Linux can hold: no separator, no NUL, neither itself nor the folder above. */
export function isName(bytes: Buffer): boolean {
  if (bytes.length === 0 || bytes.length > MAX_NAME || bytes.includes(0) || bytes.includes(SLASH)) return false;
  return !(bytes[0] === DOT && (bytes.length === 1 || (bytes.length === 2 && bytes[1] === DOT)));
}

const DOT = 0x2e;
