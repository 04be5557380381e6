// Checks of rate limits, which several kinds of devices have.
import type { RateLimiterConfig, TokenBucketConfig } from "../../devices/virtio/rate-limiter.js";

const BUCKET_KEYS: readonly (keyof TokenBucketConfig)[] = ["size", "oneTimeBurst", "refillTimeMs"];

/** `what` names the device in the problems. */
export function checkRateLimiter(limiter: RateLimiterConfig | undefined, what: string, problems: string[]): void {
  for (const [name, bucket] of Object.entries(limiter ?? {}) as [string, Partial<TokenBucketConfig>][]) {
    if (name !== "bandwidth" && name !== "operations") {
      problems.push(`${what}: unknown rate limit ${JSON.stringify(name)}; known are bandwidth, operations`);
      continue;
    }
    for (const key of BUCKET_KEYS) {
      const value = bucket[key];
      if (value === undefined || !Number.isSafeInteger(value) || value < 0) {
        problems.push(`${what}: ${name}.${key} ${String(value)} is not a whole number from 0 on`);
      }
    }
  }
}
