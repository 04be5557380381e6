// Needs: nothing.
import assert from "node:assert/strict";
import { RateLimiter, TokenBucket } from "../../../devices/virtio/rate-limiter.js";

describe("token bucket", () => {
  const config = { size: 1000, oneTimeBurst: 0, refillTimeMs: 100 };

  it("holds its size, fills with time, says how long to wait", () => {
    const bucket = new TokenBucket(config, 0);
    assert.equal(bucket.waitMs(1000, 0), 0);
    bucket.take(1000);
    assert.equal(bucket.waitMs(1, 0), 1);
    assert.equal(bucket.waitMs(500, 0), 50);
    assert.equal(bucket.waitMs(500, 30), 20);
    assert.equal(bucket.waitMs(500, 50), 0);
    bucket.take(500);
    assert.equal(bucket.waitMs(1000, 50), 100);
  });

  it("never holds more than its size, however long nothing is taken", () => {
    const bucket = new TokenBucket(config, 0);
    assert.equal(bucket.waitMs(1000, 1e9), 0);
    bucket.take(1000);
    assert.equal(bucket.waitMs(1, 1e9), 1);
  });

  it("the burst is spent first, once, and does not come back", () => {
    const bucket = new TokenBucket({ ...config, oneTimeBurst: 300 }, 0);
    assert.equal(bucket.waitMs(1300, 0), 0);
    bucket.take(1300);
    assert.equal(bucket.waitMs(1000, 0), 100);
    assert.equal(bucket.waitMs(1000, 100), 0);
    bucket.take(1000);
    assert.equal(bucket.waitMs(1000, 100), 100);
  });

  it("after the wait that it asked for, it grants, whatever the rounding", () => {
    for (let size = 1; size < 40; size++) {
      for (let refillTimeMs = 1; refillTimeMs < 40; refillTimeMs++) {
        const bucket = new TokenBucket({ size, oneTimeBurst: 0, refillTimeMs }, 1e6);
        bucket.take(size);
        const wait = bucket.waitMs(1, 1e6);
        assert.ok(wait >= 1);
        assert.equal(bucket.waitMs(1, 1e6 + wait), 0, `${String(size)} in ${String(refillTimeMs)} ms`);
      }
    }
  });

  it("a request larger than the bucket goes through at once, and is paid for afterwards", () => {
    const bucket = new TokenBucket(config, 0);
    assert.equal(bucket.waitMs(3000, 0), 0);
    bucket.take(3000);
    assert.equal(bucket.waitMs(3000, 0), 200);
    assert.equal(bucket.waitMs(1, 0), 201);
    assert.equal(bucket.waitMs(3000, 200), 0);
  });
});

describe("rate limiter", () => {
  function limiterAt(config: ConstructorParameters<typeof RateLimiter>[0]): {
    limiter: RateLimiter;
    at: (ms: number) => void;
  } {
    let now = 0;
    return { limiter: new RateLimiter(config, () => now), at: (ms) => (now = ms) };
  }

  it("without a bucket, or with one of no size or no time, it admits everything", () => {
    const size = { size: 0, oneTimeBurst: 0, refillTimeMs: 100 };
    const time = { size: 100, oneTimeBurst: 0, refillTimeMs: 0 };
    for (const config of [{}, { bandwidth: size }, { operations: time }]) {
      const { limiter } = limiterAt(config);
      assert.equal(limiter.isLimiting, false);
      assert.equal(limiter.admit(2 ** 40), 0);
    }
  });

  it("both buckets must agree, and a refusal takes from neither", () => {
    const { limiter, at } = limiterAt({
      bandwidth: { size: 1000, oneTimeBurst: 0, refillTimeMs: 1000 },
      operations: { size: 2, oneTimeBurst: 0, refillTimeMs: 100 },
    });
    assert.equal(limiter.isLimiting, true);
    assert.equal(limiter.admit(100), 0);
    assert.equal(limiter.admit(100), 0);
    assert.equal(limiter.admit(100), 50, "operations are spent");
    at(50);
    assert.equal(limiter.admit(900), 50, "850 bytes are left");
    at(100);
    assert.equal(limiter.admit(900), 0);
    assert.equal(limiter.admit(0), 0, "the refusals have cost nothing");
    assert.equal(limiter.admit(0), 50);
  });

  it("over a long time the rate is what was configured", () => {
    const { limiter, at } = limiterAt({ bandwidth: { size: 10_000, oneTimeBurst: 5000, refillTimeMs: 100 } });
    let bytes = 0;
    for (let now = 0; now < 10_000;) {
      at(now);
      const wait = limiter.admit(700);
      if (wait === 0) bytes += 700;
      else now += wait;
    }
    const expected = 10_000 * 100 + 10_000 + 5000;
    assert.ok(Math.abs(bytes - expected) <= 700 * 2, `${String(bytes)} of ${String(expected)}`);
  });
});
