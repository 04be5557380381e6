// Inputs made of others: the usual small changes, words of the format, and what the program compared the input with.
import type { Random } from "../random.js";
import type { Compared } from "./probe.js";

const INTERESTING_8: readonly number[] = [0, 1, 16, 32, 64, 100, 127, 128, 129, 254, 255];
const INTERESTING: readonly number[] = [
  0, 1, 2, 4, 8, 16, 255, 256, 511, 512, 513, 4095, 4096, 4097, 0x7fff, 0x8000, 0xffff, 0x1_0000, 0x7fff_ffff,
  0x8000_0000, 0xffff_ffff,
];
const WIDTHS: readonly number[] = [1, 2, 4, 8];
/** Words that comparisons have brought; the oldest are forgotten. */
const MAX_FOUND = 512;

export class Mutator {
  readonly #random: Random;
  readonly #words: readonly Uint8Array[];
  readonly #found: Uint8Array[] = [];
  /** The same, one character a byte. */
  readonly #known = new Set<string>();
  #nextFound = 0;
  readonly #buffer: Uint8Array;
  #length = 0;

  constructor(random: Random, maxLength: number, words: readonly string[]) {
    this.#random = random;
    this.#buffer = new Uint8Array(maxLength);
    this.#words = words.map((word) => Buffer.from(word, "latin1"));
  }

  /** Another input, a view that the next call writes over. `other`: one to take parts of. */
  mutate(input: Uint8Array, other: Uint8Array): Uint8Array {
    const random = this.#random;
    this.#length = Math.min(input.length, this.#buffer.length);
    this.#buffer.set(input.subarray(0, this.#length));
    const rounds = 1 << random.below(random.oneIn(4) ? 6 : 3);
    for (let left = rounds; left > 0; left--) this.#change(other);
    return this.#buffer.subarray(0, this.#length);
  }

  /** Remembers a value that the program wanted to see. */
  learn(value: Compared): void {
    for (const bytes of encodings(value)) {
      const word = Buffer.from(bytes).toString("latin1");
      if (bytes.length > this.#buffer.length || this.#known.has(word)) continue;
      const place = this.#nextFound++ % MAX_FOUND;
      const old = this.#found[place];
      if (old !== undefined) this.#known.delete(Buffer.from(old).toString("latin1"));
      this.#found[place] = bytes;
      this.#known.add(word);
    }
  }

  #change(other: Uint8Array): void {
    const random = this.#random;
    const buffer = this.#buffer;
    const length = this.#length;
    if (length === 0) {
      this.#insert(0, Uint8Array.of(random.below(256)));
      return;
    }
    const at = random.below(length);
    const byte = buffer[at] ?? 0;
    switch (random.below(14)) {
      case 0:
        buffer[at] = byte ^ (1 << random.below(8));
        break;
      case 1:
        buffer[at] = random.below(256);
        break;
      case 2:
        buffer[at] = random.pick(INTERESTING_8);
        break;
      case 3:
        buffer[at] = byte + random.below(35) - 17;
        break;
      case 4:
        this.#number(random.pick(INTERESTING) + (random.oneIn(3) ? random.below(5) - 2 : 0));
        break;
      case 5: {
        const count = 1 + random.below(Math.min(length - at, random.oneIn(4) ? length : 16));
        buffer.copyWithin(at, at + count, length);
        this.#length -= count;
        break;
      }
      case 6:
        this.#insert(at, new Uint8Array(1 + random.below(random.oneIn(8) ? 256 : 8)).fill(random.below(256)));
        break;
      case 7: {
        const from = random.below(length);
        const count = 1 + random.below(Math.min(length - from, 64));
        this.#insert(at, buffer.slice(from, from + count));
        break;
      }
      case 8: {
        const from = random.below(length);
        buffer.copyWithin(at, from, from + 1 + random.below(Math.min(length - from, length - at)));
        break;
      }
      case 9:
        if (other.length > 0) {
          const from = random.below(other.length);
          const piece = other.subarray(from, from + 1 + random.below(random.oneIn(4) ? other.length : 64));
          if (random.oneIn(2)) this.#insert(at, piece);
          else this.#overwrite(at, piece);
        }
        break;
      case 10:
        if (this.#words.length > 0) this.#word(at, random.pick(this.#words));
        break;
      case 11:
      case 12:
        if (this.#found.length > 0) this.#word(at, random.pick(this.#found));
        break;
      default:
        this.#digits(at);
    }
  }

  #word(at: number, word: Uint8Array): void {
    if (this.#random.oneIn(2)) this.#insert(at, word);
    else this.#overwrite(at, word);
  }

  /** A number of 2 to 8 bytes, little-endian or big-endian. */
  #number(value: number): void {
    const width = Math.min(this.#random.pick(WIDTHS), this.#length);
    const at = this.#random.below(this.#length - width + 1);
    const isBig = this.#random.oneIn(4);
    let rest = value;
    for (let index = 0; index < width; index++) {
      this.#buffer[at + (isBig ? width - 1 - index : index)] = rest;
      rest = Math.floor(rest / 256);
    }
  }

  /** Text has numbers, too. */
  #digits(at: number): void {
    let begin = at;
    while (begin < this.#length && !isDigit(this.#buffer[begin])) begin++;
    let end = begin;
    while (end < this.#length && isDigit(this.#buffer[end])) end++;
    const text = Buffer.from(String(this.#random.value()), "latin1");
    if (begin === end) return;
    this.#buffer.copyWithin(begin, end, this.#length);
    this.#length -= end - begin;
    this.#insert(begin, text);
  }

  #insert(at: number, piece: Uint8Array): void {
    const count = Math.min(piece.length, this.#buffer.length - this.#length);
    this.#buffer.copyWithin(at + count, at, this.#length);
    this.#buffer.set(piece.subarray(0, count), at);
    this.#length += count;
  }

  #overwrite(at: number, piece: Uint8Array): void {
    const count = Math.min(piece.length, this.#buffer.length - at);
    this.#buffer.set(piece.subarray(0, count), at);
    this.#length = Math.max(this.#length, at + count);
  }
}

function isDigit(byte: number | undefined): boolean {
  return byte !== undefined && byte >= 0x30 && byte <= 0x39;
}

/** How a value may stand in an input. */
export function encodings(value: Compared): Uint8Array[] {
  if (typeof value === "string") {
    const bytes = Buffer.from(value, "latin1");
    const utf8 = Buffer.from(value, "utf8");
    return value.length === 0 ? [] : bytes.equals(utf8) ? [bytes] : [bytes, utf8];
  }
  if (typeof value === "number" && !Number.isInteger(value)) return [];
  const text = Buffer.from(String(value), "latin1");
  const bits = BigInt.asUintN(64, BigInt(value));
  const made: Uint8Array[] = text.length > 1 ? [text] : [];
  for (const width of WIDTHS) {
    const isSmall = bits < 1n << BigInt(8 * width);
    // -1 as 32 bits is as good as 64 of them.
    const isNegative = BigInt.asIntN(64, bits) < 0n && BigInt.asIntN(64, bits) >= -(1n << BigInt(8 * width - 1));
    if (!isSmall && !isNegative) continue;
    const little = Uint8Array.from({ length: width }, (_, index) => Number((bits >> BigInt(8 * index)) & 0xffn));
    made.push(little);
    if (width > 1) made.push(little.toReversed());
  }
  return made;
}
