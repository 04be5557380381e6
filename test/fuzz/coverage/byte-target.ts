// A parser under bytes: what the coverage-guided search drives, and what most of them share.

import assert from "node:assert/strict";

export interface ByteTarget {
  readonly name: string;
  /** What it is that reads, as the notes name it. */
  readonly parser: string;
  /** `bytes`: inputs are no longer than this. */
  readonly maxLength: number;
  /** Inputs that are right, or nearly: where the search begins. */
  readonly seeds: readonly Uint8Array[];
  /** Words of the format, one character a byte, which a search would take long to come upon. */
  readonly words?: readonly string[];
  /** Where an input is many things, one after the other: how many of them have been tried so far. */
  readonly operations?: () => number;
  /** One input; throws for what must not happen. Nothing of one input may be left for the next. */
  run(input: Uint8Array): void | Promise<void>;
}

type ErrorClass = abstract new (...args: never[]) => Error;

/** Runs `action`, which may throw these errors and no others; true if it did. `odd`: what their messages must not have. */
export function allowing(errors: readonly ErrorClass[], action: () => void, odd?: RegExp): boolean {
  try {
    action();
    return false;
  } catch (error) {
    if (!(error instanceof Error) || !errors.some((allowed) => error instanceof allowed)) throw error;
    if (odd?.test(error.message) === true) {
      throw new Error(`A message with control characters: ${JSON.stringify(error.message)}`, { cause: error });
    }
    return true;
  }
}

/** One character a byte. */
export function text(characters: string): Buffer {
  return Buffer.from(characters, "latin1");
}

/**
 * Runs `read` with the input in one piece and, where its bytes say so, in many: what it returns must be the same. A quarter of
 * the inputs are enough for that, and cost as much as all others.
 */
export function inPiecesToo<Result>(input: Uint8Array, read: (chunks: Iterable<Uint8Array>) => Result): Result {
  const whole = read([input]);
  if (isOneInFour(input)) assert.deepEqual(read(pieces(input)), whole, "it depends on how the bytes come");
  return whole;
}

/** By length and a few bytes of it: formats of whole blocks have always the same few lengths. */
function isOneInFour(input: Uint8Array): boolean {
  let sum = input.length;
  for (let at = 0, step = 1 + (input.length >> 4); at < input.length; at += step) sum += input[at] ?? 0;
  return sum % 4 === 0;
}

/** The input cut into short pieces, whose lengths it decides itself. */
function* pieces(input: Uint8Array): Generator<Uint8Array> {
  for (let at = 0, length = 1 + (input.length % 5); at < input.length; at += length, length = 1 + ((length * 7) % 61)) {
    yield input.subarray(at, at + length);
  }
}
