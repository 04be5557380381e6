// The search: inputs that reach what none has reached before are kept, and others are made of them. All that it does follows
// from its seed.
import { setImmediate as nextTurn } from "node:timers/promises";
import { Random } from "../random.js";
import type { ByteTarget } from "./byte-target.js";
import { encodings, Mutator } from "./mutator.js";
import type { Compared, Probe } from "./probe.js";

/** Of the inputs, so many are made of one of the last `FRESH`. */
const FRESH = 8;
const INPUTS_A_TURN = 1024;
/** Inputs that one new one is turned into by what was compared. */
const MAX_REPLACED = 200;
/** How often a word was passed, as a set of bits: once, twice, … 128 times and more are different things. */
const BUCKETS = Uint8Array.from({ length: 256 }, (_, count) => (count === 0 ? 0 : 1 << bucketOf(count)));

function bucketOf(count: number): number {
  if (count <= 3) return count - 1;
  const bucket = [8, 16, 32, 128].findIndex((limit) => count < limit);
  return bucket < 0 ? 7 : 3 + bucket;
}

/** An input that broke something. */
export class Broken extends Error {
  readonly input: Uint8Array;

  constructor(input: Uint8Array, cause: unknown) {
    super("An input broke something", { cause });
    this.input = input;
  }
}

export class Engine {
  /** Inputs that have reached something new, in the order in which they were found. */
  readonly corpus: Uint8Array[] = [];
  /** Inputs that have run. */
  inputs = 0;
  readonly #target: ByteTarget;
  readonly #probe: Probe;
  readonly #random: Random;
  readonly #mutator: Mutator;
  readonly #before: (input: Uint8Array) => void;
  /** What has been reached: bits of BUCKETS for each place. */
  #seen: Uint8Array;

  /** `before` is told of each input before it runs. */
  constructor(target: ByteTarget, probe: Probe, seed: number, before: (input: Uint8Array) => void = () => undefined) {
    this.#target = target;
    this.#probe = probe;
    this.#random = new Random(seed);
    this.#mutator = new Mutator(this.#random, target.maxLength, target.words ?? []);
    this.#before = before;
    this.#seen = new Uint8Array(probe.words.length * 4);
  }

  /** Places that have been reached. */
  get reached(): number {
    return this.#seen.reduce((sum, bits) => sum + (bits === 0 ? 0 : 1), 0);
  }

  /** Inputs to begin with: all of them are kept. */
  async begin(inputs: readonly Uint8Array[]): Promise<void> {
    for (const input of [...inputs, new Uint8Array(0)]) await this.#try(input.slice(0, this.#target.maxLength), true);
  }

  /** Inputs that have run, or what was in them if they are many things each. */
  get count(): number {
    return this.#target.operations?.() ?? this.inputs;
  }

  /** Makes and runs inputs until the count has come to this one. Throws Broken. */
  async run(count: number): Promise<void> {
    while (this.count < count) {
      const input = this.#mutator.mutate(this.#pick(), this.#random.pick(this.corpus));
      // Only what has to be waited for is: a promise an input would be a good part of the time.
      const more = this.#try(input, false);
      if (more !== undefined) await more;
      // What is collected of memory that is mapped is let go in a turn of the event loop.
      if (this.inputs % INPUTS_A_TURN === 0) await nextTurn();
    }
  }

  #pick(): Uint8Array {
    const { length } = this.corpus;
    const isFresh = this.#random.oneIn(3);
    const index = isFresh ? length - 1 - this.#random.below(Math.min(FRESH, length)) : this.#random.below(length);
    return this.corpus[index] ?? new Uint8Array(0);
  }

  #try(input: Uint8Array, isKept: boolean): Promise<void> | undefined {
    this.inputs++;
    this.#before(input);
    this.#probe.clear();
    const running = this.#run(input);
    if (running !== undefined) return running.then(() => this.#look(input, isKept));
    return this.#look(input, isKept);
  }

  #look(input: Uint8Array, isKept: boolean): Promise<void> | undefined {
    if (!this.#isNew() && !isKept) return undefined;
    const kept = input.slice();
    this.corpus.push(kept);
    return this.#follow(kept);
  }

  #run(input: Uint8Array): Promise<void> | undefined {
    const broken = (error: unknown): never => {
      throw new Broken(input.slice(), error);
    };
    try {
      return this.#target.run(input)?.catch(broken);
    } catch (error) {
      return broken(error);
    }
  }

  /** Learns what the program compared, and tries the input with what it was compared to. */
  async #follow(input: Uint8Array): Promise<void> {
    const compared = await this.#probe.trace(() => this.#run(input));
    let left = MAX_REPLACED;
    const done = new Set<string>();
    for (const [one, other] of compared) {
      // A loop compares the same again and again.
      const pair = `${typeof one} ${String(one)} ${String(other)}`;
      if (done.has(pair)) continue;
      done.add(pair);
      this.#mutator.learn(one);
      this.#mutator.learn(other);
      for (const [is, becomes] of [
        [one, other],
        [other, one],
      ] as const) {
        for (const replaced of replacements(input, is, becomes)) {
          if (left-- <= 0) return;
          if (replaced.length <= this.#target.maxLength) await this.#try(replaced, false);
        }
      }
    }
  }

  #isNew(): boolean {
    const words = this.#probe.words;
    // Modules may be loaded late.
    if (words.length * 4 > this.#seen.length) {
      const more = new Uint8Array(words.length * 4);
      more.set(this.#seen);
      this.#seen = more;
    }
    const bytes = new Uint8Array(words.buffer, 0, words.length * 4);
    let isNew = false;
    for (let word = 0; word < words.length; word++) {
      if (words[word] === 0) continue;
      for (let place = 4 * word; place < 4 * word + 4; place++) {
        const bits = BUCKETS[bytes[place] ?? 0] ?? 0;
        const seen = this.#seen[place] ?? 0;
        if ((bits & ~seen) === 0) continue;
        this.#seen[place] = seen | bits;
        isNew = true;
      }
    }
    return isNew;
  }
}

/** The input with a value that stands in it replaced by another, in the same encoding. */
function* replacements(input: Uint8Array, is: Compared, becomes: Compared): Generator<Uint8Array> {
  const targets = encodings(becomes);
  for (const from of encodings(is)) {
    const at = Buffer.from(input.buffer, input.byteOffset, input.length).indexOf(from);
    if (at < 0) continue;
    for (const to of targets) {
      if (typeof is !== "string" && to.length !== from.length) continue;
      yield Buffer.concat([input.subarray(0, at), to, input.subarray(at + from.length)]);
    }
  }
}

/** The shortest of the inputs that together reach all that they reach. */
export async function minimized(
  target: ByteTarget,
  probe: Probe,
  inputs: readonly Uint8Array[],
): Promise<Uint8Array[]> {
  const sorted = [...inputs].sort((a, b) => a.length - b.length);
  const kept: Uint8Array[] = [];
  const seen = new Uint8Array(probe.words.length * 4);
  for (const input of sorted) {
    probe.clear();
    await target.run(input);
    const bytes = new Uint8Array(probe.words.buffer, 0, seen.length);
    let isNew = false;
    for (let place = 0; place < seen.length; place++) {
      // Once or more often: how often exactly is what the search wants, a corpus would have too many of it.
      const bits = bytes[place] === 0 ? 0 : (bytes[place] ?? 0) > 1 ? 3 : 1;
      if ((bits & ~(seen[place] ?? 0)) === 0) continue;
      seen[place] = (seen[place] ?? 0) | bits;
      isNew = true;
    }
    if (isNew) kept.push(input);
  }
  return kept;
}

/** A shorter, plainer input that `breaks` as well. */
export async function minimizeBroken(
  input: Uint8Array,
  breaks: (input: Uint8Array) => Promise<boolean>,
): Promise<Uint8Array> {
  let best = input;
  for (let size = Math.ceil(best.length / 2); size >= 1; size = size === 1 ? 0 : Math.ceil(size / 2)) {
    for (let at = 0; at < best.length;) {
      const shorter = Buffer.concat([best.subarray(0, at), best.subarray(at + size)]);
      if (await breaks(shorter)) best = shorter;
      else at += size;
    }
  }
  for (let at = 0; at < best.length; at++) {
    if (best[at] === 0) continue;
    const plainer = Uint8Array.from(best);
    plainer[at] = 0;
    if (await breaks(plainer)) best = plainer;
  }
  return best;
}
