// Reads a tar archive as its bytes come: ustar, pax, GNU and old ones. It never waits and holds no more than one header
// and what belongs to it. The libraries for tar decode records of extended headers as UTF-8, which loses names in other
// encodings and attributes such as security.capability: hence this one, which keeps bytes.
import { ImageError } from "../../errors.js";
import { showBytes } from "../show-bytes.js";
import type { Xattr } from "../tree.js";
import { TAR_BLOCK, parseHeader, type TarHeader } from "./header.js";
import { parsePax, paxNumber, paxTime, paxXattrs } from "./pax.js";
import { OldSparseReader, sparseFromFront, sparseFromRecords, type SparseMap } from "./sparse.js";

/** One entry with all that its headers say of it. Texts are latin1. */
export interface TarEntry {
  readonly name: string;
  readonly type: "file" | "link" | "symlink" | "char" | "block" | "folder" | "fifo";
  readonly linkName: string;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly mtime: number;
  readonly mtimeNs: number;
  readonly major: number;
  readonly minor: number;
  /** `bytes` of a file, with its holes. */
  readonly size: number;
  readonly xattrs: readonly Xattr[];
}

/** What is done with the entries; nothing of it may keep the bytes that it is given. */
export interface TarSink {
  entry(entry: TarEntry): void;
  /** The next bytes of the file that `entry` has last announced. */
  data(bytes: Buffer): void;
  /** So many zeroes of it. */
  hole(length: number): void;
}

/** `bytes` of an extended header or a long name. */
const MAX_EXTENSION = 4 * 1024 * 1024;
const MAX_ID = 2 ** 32 - 2;
const TYPES: Readonly<Record<string, TarEntry["type"]>> = {
  "0": "file",
  "7": "file",
  "1": "link",
  "2": "symlink",
  "3": "char",
  "4": "block",
  "5": "folder",
  "6": "fifo",
};
/** Records that would be wrong for more than one entry. */
const NOT_GLOBAL = ["path", "linkpath", "size", "GNU.sparse.map", "GNU.sparse.size"];

type Task =
  | { readonly is: "header" }
  | { readonly is: "extension"; readonly type: string; left: number; readonly pieces: Buffer[] }
  | { readonly is: "old-sparse"; readonly header: TarHeader; readonly sparse: OldSparseReader }
  | { readonly is: "front-sparse"; readonly header: TarHeader; text: string; left: number }
  | { readonly is: "data"; left: number }
  | { readonly is: "skip"; left: number }
  | { readonly is: "ended" };

export class TarReader {
  readonly #sink: TarSink;
  /** The start of a block whose rest has not come yet. */
  readonly #block = Buffer.alloc(TAR_BLOCK);
  #blockLength = 0;
  #task: Task = { is: "header" };
  /** Skipped before the next header: what fills the last block of a file. */
  #padding = 0;
  #globals = new Map<string, string>();
  #records = new Map<string, string>();
  /** GNU.sparse.offset and GNU.sparse.numbytes of the form 0.0, in turn. */
  #sparseNumbers: string[] = [];
  #longName: string | undefined;
  #longLink: string | undefined;
  /** `bytes` of the extended headers of this entry, and of those for all. */
  #extensionBytes = 0;
  #globalBytes = 0;
  #sparse: SparseMap | undefined;
  #piece = 0;
  #pieceLeft = 0;
  #position = 0;

  constructor(sink: TarSink) {
    this.#sink = sink;
  }

  /** The archive has come to its end; what follows does not matter. */
  get hasEnded(): boolean {
    return this.#task.is === "ended";
  }

  /** `bytes` of contents that come before the next header: who can seek need not read them, and calls `skipContentIfAny`. */
  get contentLeft(): number {
    return this.#task.is === "data" || this.#task.is === "skip" ? this.#task.left + this.#padding : 0;
  }

  skipContentIfAny(): void {
    if (this.contentLeft === 0) return;
    this.#padding = 0;
    this.#sparse = undefined;
    this.#task = { is: "header" };
  }

  /** The next bytes. Throws ImageError, and whatever the sink throws. */
  write(chunk: Buffer): void {
    for (let at = 0; at < chunk.length;) {
      const task = this.#task;
      switch (task.is) {
        case "ended":
          return;
        case "data":
        case "skip": {
          const length = Math.min(task.left, chunk.length - at);
          if (task.is === "data") this.#data(chunk.subarray(at, at + length));
          task.left -= length;
          at += length;
          if (task.left === 0) this.#contentEnded(task.is === "data");
          break;
        }
        case "extension": {
          const length = Math.min(task.left, chunk.length - at);
          task.pieces.push(Buffer.from(chunk.subarray(at, at + length)));
          task.left -= length;
          at += length;
          if (task.left === 0) this.#extension(task.type, Buffer.concat(task.pieces));
          break;
        }
        default: {
          const length = Math.min(TAR_BLOCK - this.#blockLength, chunk.length - at);
          chunk.copy(this.#block, this.#blockLength, at, at + length);
          this.#blockLength += length;
          at += length;
          if (this.#blockLength < TAR_BLOCK) break;
          this.#blockLength = 0;
          this.#wholeBlock(task);
        }
      }
    }
  }

  /** No more bytes. `needsEnd`: an archive that lacks its last blocks is refused, as one that was cut off may. */
  end(needsEnd: boolean): void {
    const isAtHeader = this.#task.is === "header" && this.#blockLength === 0 && !this.#hasExtensions();
    if (this.hasEnded || (isAtHeader && !needsEnd)) return;
    throw new ImageError("The tar archive ends in the middle: it was cut off");
  }

  #hasExtensions(): boolean {
    return this.#records.size > 0 || this.#longName !== undefined || this.#longLink !== undefined;
  }

  #wholeBlock(task: Task): void {
    if (task.is === "old-sparse") {
      task.sparse.more(this.#block);
      if (!task.sparse.needsMore) this.#begin(task.header, task.sparse.map(task.header.size));
      return;
    }
    if (task.is === "front-sparse") {
      this.#frontBlock(task);
      return;
    }
    const header = parseHeader(this.#block);
    if (header === undefined) {
      if (this.#hasExtensions()) throw new ImageError("A tar archive's extended header has no entry");
      this.#task = { is: "ended" };
      return;
    }
    this.#header({ ...header, block: Buffer.from(header.block) });
  }

  #header(header: TarHeader): void {
    const { type } = header;
    if ("xgLKX".includes(type)) {
      if (header.size < 0 || header.size > MAX_EXTENSION) {
        throw new ImageError(
          `A tar archive's extended header has ${String(header.size)} bytes, more than ${String(MAX_EXTENSION)}`,
        );
      }
      this.#padding = paddingOf(header.size);
      this.#task = { is: "extension", type, left: header.size, pieces: [] };
      if (header.size === 0) this.#extension(type, Buffer.alloc(0));
      return;
    }
    const size = this.#number("size") ?? header.size;
    if (size < 0) throw new ImageError(`A tar archive has an entry of ${String(size)} bytes`);
    const sized = { ...header, size };
    if (type === "S") {
      const sparse = new OldSparseReader(header.block);
      if (sparse.needsMore) this.#task = { is: "old-sparse", header: sized, sparse };
      else this.#begin(sized, sparse.map(size));
      return;
    }
    if (type === "V" || type === "D" || type === "N" || type === "M") {
      // A volume's label has no contents; the others belong to incremental and split archives.
      if (type !== "V") throw unknownType(this.#nameOf(header), type);
      this.#forget();
      this.#skipContent(size);
      return;
    }
    if (this.#record("GNU.sparse.major") === "1" && this.#record("GNU.sparse.minor") === "0") {
      this.#task = { is: "front-sparse", header: sized, text: "", left: size };
      if (size < TAR_BLOCK) throw new ImageError("A tar archive's map of a sparse file is damaged");
      return;
    }
    this.#begin(sized, sparseFromRecords(this.#records, this.#sparseNumbers, size));
  }

  #frontBlock(task: Task & { is: "front-sparse" }): void {
    task.text += this.#block.toString("latin1");
    task.left -= TAR_BLOCK;
    const size = this.#number("GNU.sparse.realsize") ?? 0;
    const found = sparseFromFront(task.text, size, task.header.size);
    if (found !== undefined) this.#begin({ ...task.header, size: task.header.size - found.bytes }, found.map);
    else if (task.left < TAR_BLOCK || task.text.length > MAX_EXTENSION) {
      throw new ImageError("A tar archive's map of a sparse file is damaged");
    }
  }

  /** All headers of an entry have come; its contents have `header.size` bytes in the archive. */
  #begin(header: TarHeader, sparse: SparseMap | undefined): void {
    const name = this.#nameOf(header);
    const kind = header.type === "S" ? "file" : TYPES[header.type];
    if (kind === undefined) throw unknownType(name, header.type);
    // Archives older than POSIX have no type for folders.
    const type = kind === "file" && name.endsWith("/") ? "folder" : kind;
    const time = this.#record("mtime");
    const entry: TarEntry = {
      name,
      type,
      linkName: this.#record("linkpath") ?? this.#longLink ?? header.linkName,
      mode: header.mode & 0o7777,
      uid: idOf(name, "uid", this.#number("uid") ?? header.uid),
      gid: idOf(name, "gid", this.#number("gid") ?? header.gid),
      ...((time === undefined ? undefined : paxTime(time)) ?? { mtime: header.mtime, mtimeNs: 0 }),
      major: header.major,
      minor: header.minor,
      size: type === "file" ? (sparse?.size ?? header.size) : 0,
      xattrs: paxXattrs(this.#globals.size === 0 ? this.#records : new Map([...this.#globals, ...this.#records])),
    };
    this.#forget();
    this.#sink.entry(entry);
    // Only a file has contents: what the others' size says, GNU's and Go's readers ignore, too.
    if (kind !== "file") {
      this.#task = { is: "header" };
      return;
    }
    if (type !== "file") {
      this.#skipContent(header.size);
      return;
    }
    this.#sparse = sparse;
    this.#position = 0;
    this.#piece = 0;
    this.#padding = paddingOf(header.size);
    this.#task = { is: "data", left: header.size };
    this.#nextPiece();
    if (header.size === 0) this.#contentEnded(true);
  }

  #skipContent(size: number): void {
    this.#padding = 0;
    const left = size + paddingOf(size);
    this.#task = left === 0 ? { is: "header" } : { is: "skip", left };
  }

  #data(bytes: Buffer): void {
    if (this.#sparse === undefined) {
      this.#sink.data(bytes);
      return;
    }
    for (let at = 0; at < bytes.length;) {
      const length = Math.min(this.#pieceLeft, bytes.length - at);
      this.#sink.data(bytes.subarray(at, at + length));
      at += length;
      this.#pieceLeft -= length;
      this.#position += length;
      if (this.#pieceLeft === 0) this.#nextPiece();
    }
  }

  /** Goes over the hole in front of the next piece. */
  #nextPiece(): void {
    const piece = this.#sparse?.pieces[this.#piece++];
    if (piece === undefined) return;
    if (piece.offset > this.#position) this.#sink.hole(piece.offset - this.#position);
    this.#position = piece.offset;
    this.#pieceLeft = piece.length;
  }

  #contentEnded(isFile: boolean): void {
    if (isFile && this.#sparse !== undefined) {
      if (this.#sparse.size > this.#position) this.#sink.hole(this.#sparse.size - this.#position);
      this.#sparse = undefined;
    }
    const left = this.#padding;
    this.#padding = 0;
    this.#task = left === 0 ? { is: "header" } : { is: "skip", left };
  }

  #extension(type: string, body: Buffer): void {
    if (type === "g") this.#globalBytes += body.length;
    else this.#extensionBytes += body.length;
    if (this.#extensionBytes > MAX_EXTENSION || this.#globalBytes > MAX_EXTENSION) {
      throw new ImageError(
        `The extended headers of a tar archive's entry have more than ${String(MAX_EXTENSION)} bytes`,
      );
    }
    if (type === "L") this.#longName = untilZero(body);
    else if (type === "K") this.#longLink = untilZero(body);
    else {
      const records = parsePax(body);
      if (type === "g") {
        const wrong = NOT_GLOBAL.find((key) => records.has(key));
        if (wrong !== undefined) throw new ImageError(`A tar archive gives all its entries one ${wrong}`);
        for (const [key, value] of records) this.#globals.set(key, value);
      } else {
        // What comes again counts; those of 0.0 come again and again.
        if (records.has("GNU.sparse.offset")) this.#sparseNumbers = repeatedNumbers(body);
        for (const [key, value] of records) this.#records.set(key, value);
      }
    }
    this.#contentEnded(false);
  }

  #nameOf(header: TarHeader): string {
    return this.#record("GNU.sparse.name") ?? this.#record("path") ?? this.#longName ?? header.name;
  }

  #record(key: string): string | undefined {
    const own = this.#records.get(key);
    const value = own ?? this.#globals.get(key);
    return value === "" ? undefined : value;
  }

  #number(key: string): number | undefined {
    return paxNumber(this.#records.has(key) ? this.#records : this.#globals, key);
  }

  #forget(): void {
    this.#extensionBytes = 0;
    this.#records = new Map();
    this.#sparseNumbers = [];
    this.#longName = undefined;
    this.#longLink = undefined;
  }
}

function paddingOf(size: number): number {
  return (TAR_BLOCK - (size % TAR_BLOCK)) % TAR_BLOCK;
}

function untilZero(body: Buffer): string {
  const end = body.indexOf(0);
  return body.toString("latin1", 0, end < 0 ? body.length : end);
}

function repeatedNumbers(body: Buffer): string[] {
  const found = body.toString("latin1").matchAll(/ GNU\.sparse\.(?:offset|numbytes)=(\d+)\n/g);
  return [...found].map(([, digits = ""]) => digits);
}

function idOf(name: string, what: string, id: number): number {
  if (id >= 0 && id <= MAX_ID) return id;
  throw new ImageError(`${showBytes(name)} has the ${what} ${String(id)}, which is not from 0 to ${String(MAX_ID)}`);
}

function unknownType(name: string, type: string): ImageError {
  return new ImageError(`${showBytes(name)} is of a type that no file system has: ${showBytes(type)}`);
}
