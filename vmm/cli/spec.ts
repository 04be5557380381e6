// Values of options that are lists: KEY[=VALUE],... A comma inside a value is written twice.
import type { RateLimiterConfig, TokenBucketConfig } from "../../devices/virtio/rate-limiter.js";
import { parseBytes, parseWhole } from "./numbers.js";
import { UsageError } from "./usage-error.js";

/** Limits are per second. */
const REFILL_MS = 1000;

/** One word of a list; its methods throw UsageError for a value that cannot be. */
export class SpecWord {
  readonly key: string;
  readonly #value: string | undefined;
  readonly #wrong: (problem: string) => never;

  constructor(word: string, wrong: (problem: string) => never) {
    const at = word.indexOf("=");
    this.key = at < 0 ? word : word.slice(0, at);
    this.#value = at < 0 ? undefined : word.slice(at + 1);
    this.#wrong = wrong;
  }

  /** KEY=VALUE. */
  text(): string {
    const value = this.#value;
    return value === undefined || value === "" ? this.#wrong(`${this.key} needs a value: ${this.key}=`) : value;
  }

  /** KEY alone. */
  flag(): true {
    return this.#value === undefined ? true : this.#wrong(`${this.key} takes no value`);
  }

  /** KEY=on or KEY=off. */
  isOn(): boolean {
    const text = this.text();
    return text === "on" || text === "off" ? text === "on" : this.#wrong(`${this.key} ${text} is not one of on, off`);
  }

  /** A whole number. */
  number(): number {
    const text = this.text();
    return parseWhole(text) ?? this.#wrong(`${this.key} ${text} is not a whole number`);
  }

  /** A limit a second: a number, with K, M, G or T for 2^10 to 2^40. */
  perSecond(kind: string): TokenBucketConfig {
    const text = this.text();
    const size = parseBytes(text, 1);
    if (size === undefined) return this.#wrong(`${this.key} ${text} is not ${kind}`);
    // A token bucket of size 0 means no limit: the opposite of what the user wrote.
    if (size === 0)
      return this.#wrong(`${this.key} 0 would let nothing through; without ${this.key} there is no limit`);
    return { size, oneTimeBurst: 0, refillTimeMs: REFILL_MS };
  }
}

/**
 * Hands each word of `text` to `take`, which answers false for a key that it does not know.
 * Keys come once, but for those in `repeatable`.
 */
export function readSpec(
  option: string,
  text: string,
  known: string,
  take: (word: SpecWord) => boolean,
  repeatable: readonly string[] = [],
): void {
  const wrong = (problem: string): never => {
    throw specError(option, text, problem);
  };
  const seen = new Set<string>();
  for (const part of splitList(text)) {
    const word = new SpecWord(part, wrong);
    if (seen.has(word.key) && !repeatable.includes(word.key)) wrong(`${word.key} is given twice`);
    seen.add(word.key);
    if (!take(word)) wrong(`unknown ${JSON.stringify(word.key)}; known are ${known}`);
  }
}

export function specError(option: string, text: string, problem: string): UsageError {
  return new UsageError(`${option} ${text}: ${problem}`);
}

/** What stands before the first single comma, and what behind it; undefined without one. */
export function firstWord(text: string): readonly [word: string, rest: string | undefined] {
  const [word = "", ...more] = text.replaceAll(",,", "\0").split(",");
  const rest = more.join(",").replaceAll("\0", ",,");
  return [word.replaceAll("\0", ","), more.length === 0 ? undefined : rest];
}

/** The words bw= and ops= of several options. */
export class RateLimitWords {
  #bandwidth: TokenBucketConfig | undefined;
  #operations: TokenBucketConfig | undefined;

  /** False if the word is another. */
  take(word: SpecWord): boolean {
    if (word.key === "bw") this.#bandwidth = word.perSecond("a size: 500K, 20M");
    else if (word.key === "ops") this.#operations = word.perSecond("a number");
    else return false;
    return true;
  }

  /** Undefined without limits. */
  get config(): RateLimiterConfig | undefined {
    const bandwidth = this.#bandwidth;
    const operations = this.#operations;
    if (bandwidth === undefined && operations === undefined) return undefined;
    return {
      ...(bandwidth === undefined ? {} : { bandwidth }),
      ...(operations === undefined ? {} : { operations }),
    };
  }
}

/** The words as one argument again. */
export function formatSpec(words: readonly string[]): string {
  return words.map((word) => word.replaceAll(",", ",,")).join(",");
}

/** Splits at single commas; a double comma is one that belongs to the value. No argument holds a NUL. */
function splitList(text: string): string[] {
  return text
    .replaceAll(",,", "\0")
    .split(",")
    .map((word) => word.replaceAll("\0", ","));
}
