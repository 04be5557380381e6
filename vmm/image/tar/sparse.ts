// Files with holes: the archive has only what is between them. GNU tar 1.34, "Storing Sparse Files": the old form has the
// map in headers of its own, 0.0 and 0.1 in the extended header, 1.0 in front of the contents.
import { ImageError } from "../../errors.js";
import { number } from "./header.js";

/** Pieces of a file that are in the archive, in order. */
export interface SparseMap {
  /** `bytes` of the file with its holes. */
  readonly size: number;
  readonly pieces: readonly { readonly offset: number; readonly length: number }[];
}

const MAX_PIECES = 1_000_000;
/** Of the old header: four pieces, whether more follow, the size; of a block of more: 21. */
const OLD_PIECES = 4;
const OLD_PIECES_AT = 386;
const OLD_MORE_AT = 482;
const OLD_SIZE_AT = 483;
const MORE_PIECES = 21;
const MORE_MORE_AT = 504;
const PIECE_BYTES = 24;

/** Takes the blocks of an old map one after the other, the header first. */
export class OldSparseReader {
  readonly #numbers: number[] = [];
  readonly #size: number;
  needsMore: boolean;

  constructor(header: Buffer) {
    this.#size = number(header, OLD_SIZE_AT, 12, "size");
    this.#take(header, OLD_PIECES_AT, OLD_PIECES);
    this.needsMore = header[OLD_MORE_AT] !== 0;
  }

  more(block: Buffer): void {
    this.#take(block, 0, MORE_PIECES);
    this.needsMore = block[MORE_MORE_AT] !== 0;
    if (this.#numbers.length > 2 * MAX_PIECES) throw tooMany();
  }

  map(stored: number): SparseMap {
    return mapOf(this.#numbers, this.#size, stored);
  }

  #take(block: Buffer, start: number, count: number): void {
    for (let index = 0; index < count; index++) {
      const at = start + PIECE_BYTES * index;
      if (block[at] === 0) return;
      this.#numbers.push(number(block, at, 12, "offset"), number(block, at + 12, 12, "size"));
    }
  }
}

/** Of an extended header in one of the first two forms; undefined without one. `stored`: `bytes` in the archive. */
export function sparseFromRecords(
  records: ReadonlyMap<string, string>,
  repeated: readonly string[],
  stored: number,
): SparseMap | undefined {
  const size = records.get("GNU.sparse.size");
  if (size === undefined) return undefined;
  const map = records.get("GNU.sparse.map");
  const texts = map === undefined ? repeated : map === "" ? [] : map.split(",");
  if (texts.length > 2 * MAX_PIECES) throw tooMany();
  return mapOf(texts.map(parseNumber), parseNumber(size), stored);
}

/** The map in front of the contents: decimal numbers, each on a line, the count first. Undefined while it is not whole. */
export function sparseFromFront(
  text: string,
  size: number,
  stored: number,
): { readonly map: SparseMap; readonly bytes: number } | undefined {
  let at = 0;
  const next = (): number | undefined => {
    const end = text.indexOf("\n", at);
    if (end < 0) {
      if (text.length - at > 20) throw damaged();
      return undefined;
    }
    const value = parseNumber(text.slice(at, end));
    at = end + 1;
    return value;
  };
  const count = next();
  if (count === undefined) return undefined;
  if (count > MAX_PIECES) throw tooMany();
  const numbers: number[] = [];
  while (numbers.length < 2 * count) {
    const value = next();
    if (value === undefined) return undefined;
    numbers.push(value);
  }
  const bytes = Math.ceil(at / 512) * 512;
  return { map: mapOf(numbers, size, stored - bytes), bytes };
}

function parseNumber(text: string): number {
  if (!/^\d{1,16}$/.test(text) || !Number.isSafeInteger(Number(text))) throw damaged();
  return Number(text);
}

function mapOf(numbers: readonly number[], size: number, stored: number): SparseMap {
  if (numbers.length % 2 !== 0) throw damaged();
  const pieces: { offset: number; length: number }[] = [];
  let end = 0;
  let sum = 0;
  for (let index = 0; index < numbers.length; index += 2) {
    const offset = numbers[index] ?? 0;
    const length = numbers[index + 1] ?? 0;
    if (offset < end || offset + length > size || offset < 0 || length < 0) throw damaged();
    end = offset + length;
    sum += length;
    // The last one may only say where the file ends.
    if (length > 0) pieces.push({ offset, length });
  }
  if (sum !== stored || !Number.isSafeInteger(size)) throw damaged();
  return { size, pieces };
}

function damaged(): ImageError {
  return new ImageError("A tar archive's map of a sparse file is damaged");
}

function tooMany(): ImageError {
  return new ImageError(`A sparse file has more than ${String(MAX_PIECES)} pieces`);
}
