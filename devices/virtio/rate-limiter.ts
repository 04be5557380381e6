// Token buckets over bandwidth and operations, with Firecracker's semantics: a bucket holds up to
// `size` tokens, fills from empty in `refillTimeMs`, and begins with a burst that never comes
// back. Time is handed in, so that nothing here waits.

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

  /** Takes them, after `waitMs` has said 0. */
  take(count: number): void {
    const fromBurst = Math.min(this.#burst, count);
    this.#burst -= fromBurst;
    this.#tokens -= count - fromBurst;
  }
}

export class RateLimiter {
  readonly #bandwidth: TokenBucket | undefined;
  readonly #operations: TokenBucket | undefined;
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
