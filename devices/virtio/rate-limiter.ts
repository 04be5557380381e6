// Token buckets over bandwidth and operations, with Firecracker's semantics: a bucket holds up to
// `size` tokens, fills from empty in `refillTimeMs`, and begins with a burst that never comes
// back. Time is handed in, so that nothing here waits.

import type { State, StateReader } from "../state.js";

export interface TokenBucketConfig {
  /** Tokens that fit: `bytes` or operations. 0: no limit. */
  readonly size: number;
  /** Further tokens at the start, spent first and once. */
  readonly oneTimeBurst: number;
  /** `ms` from empty to full. 0: no limit. */
  readonly refillTimeMs: number;
}

export interface RateLimiterConfig {
  readonly bandwidth?: TokenBucketConfig | undefined;
  readonly operations?: TokenBucketConfig | undefined;
}

/** Tokens that a saved bucket may be in debt: as many as the largest chain has bytes. */
const MAX_DEBT = 2 ** 32;

export class TokenBucket {
  readonly #size: number;
  readonly #tokensPerMs: number;
  #burst: number;
  /** Below zero after a request that was larger than the bucket: a debt to be paid first. */
  #tokens: number;
  #filledAtMs: number;

  constructor({ size, oneTimeBurst, refillTimeMs }: TokenBucketConfig, nowMs: number) {
    this.#size = size;
    this.#tokensPerMs = size / refillTimeMs;
    this.#burst = oneTimeBurst;
    this.#tokens = size;
    this.#filledAtMs = nowMs;
  }

  /** 0 if `count` tokens may be taken now, else how many whole `ms` to wait before asking again. */
  waitMs(count: number, nowMs: number): number {
    this.#tokens = Math.min(this.#size, this.#tokens + (nowMs - this.#filledAtMs) * this.#tokensPerMs);
    this.#filledAtMs = nowMs;
    // A request larger than the bucket passes once there is no debt, and leaves one.
    const needed = Math.max(0, count - this.#burst);
    const threshold = needed > this.#size ? 0 : needed;
    // Rounded up: a remainder too small to move the clock would be waited for again and again.
    return this.#tokens >= threshold ? 0 : Math.ceil((threshold - this.#tokens) / this.#tokensPerMs);
  }

  save(nowMs: number): State {
    this.waitMs(0, nowMs);
    return { tokens: Math.floor(this.#tokens), burst: this.#burst };
  }

  /** No more than this bucket holds, whose limits may be others than those of the saved one. */
  restore({ tokens, burst }: BucketLevel, nowMs: number): void {
    this.#tokens = Math.min(tokens, this.#size);
    this.#burst = Math.min(burst, this.#burst);
    this.#filledAtMs = nowMs;
  }

  /** Takes them, after `waitMs` has said 0. */
  take(count: number): void {
    const fromBurst = Math.min(this.#burst, count);
    this.#burst -= fromBurst;
    this.#tokens -= count - fromBurst;
  }
}

/** How full a saved bucket was. */
interface BucketLevel {
  readonly tokens: number;
  readonly burst: number;
}

function readLevel(state: StateReader): BucketLevel | undefined {
  if (state.isNull) return undefined;
  state.only(["tokens", "burst"]);
  return {
    tokens: state.integer("tokens", { minimum: -MAX_DEBT, maximum: Number.MAX_SAFE_INTEGER }),
    burst: state.integer("burst", { minimum: 0, maximum: Number.MAX_SAFE_INTEGER }),
  };
}

export class RateLimiter {
  #bandwidth: TokenBucket | undefined;
  #operations: TokenBucket | undefined;
  readonly #now: () => number;

  /** `now`: monotonic `ms`. */
  constructor({ bandwidth, operations }: RateLimiterConfig, now: () => number) {
    this.#now = now;
    this.#bandwidth = bucket(bandwidth, now());
    this.#operations = bucket(operations, now());
  }

  /** True if there is any limit at all. */
  get isLimiting(): boolean {
    return this.#bandwidth !== undefined || this.#operations !== undefined;
  }

  /** A bucket that is given begins anew, full, or is no more; one that is not given stays as it is. */
  update({ bandwidth, operations }: RateLimiterConfig): void {
    const now = this.#now();
    if (bandwidth !== undefined) this.#bandwidth = bucket(bandwidth, now);
    if (operations !== undefined) this.#operations = bucket(operations, now);
  }

  /** One operation of `bytes` that cannot wait: what there is not is a debt. */
  charge(bytes: number): void {
    this.#bandwidth?.take(bytes);
    this.#operations?.take(1);
  }

  save(): State {
    const now = this.#now();
    return { bandwidth: this.#bandwidth?.save(now) ?? null, operations: this.#operations?.save(now) ?? null };
  }

  /** The limits are those of the options: what is saved says how much of them is used up. */
  restore(state: StateReader): void {
    state.only(["bandwidth", "operations"]);
    const now = this.#now();
    const bandwidth = readLevel(state.at("bandwidth"));
    const operations = readLevel(state.at("operations"));
    if (bandwidth !== undefined) this.#bandwidth?.restore(bandwidth, now);
    if (operations !== undefined) this.#operations?.restore(operations, now);
  }

  /** One operation of `bytes`: 0 if it may go on, counted; else `ms` to wait, nothing counted. */
  admit(bytes: number): number {
    const now = this.#now();
    const wait = Math.max(this.#bandwidth?.waitMs(bytes, now) ?? 0, this.#operations?.waitMs(1, now) ?? 0);
    if (wait > 0) return wait;
    this.#bandwidth?.take(bytes);
    this.#operations?.take(1);
    return 0;
  }
}

function bucket(config: TokenBucketConfig | undefined, nowMs: number): TokenBucket | undefined {
  if (config === undefined || config.size === 0 || config.refillTimeMs === 0) return undefined;
  return new TokenBucket(config, nowMs);
}
