// Needs: nothing.
import assert from "node:assert/strict";
import { StateReader } from "../../../devices/state.js";
import { RateLimiter, TokenBucket } from "../../../devices/virtio/rate-limiter.js";
import { Throttle } from "../../../devices/virtio/throttle.js";
import { FakeLoop } from "../../helpers/fake-loop.js";

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

describe("token bucket: beside Firecracker's", () => {
  it("a burst covers part of a request, what is left comes from the bucket", () => {
    const bucket = new TokenBucket({ size: 100, oneTimeBurst: 50, refillTimeMs: 100 }, 0);
    bucket.take(120);
    assert.equal(bucket.waitMs(30, 0), 0, "30 of 100 are left");
    assert.equal(bucket.waitMs(31, 0), 1);
    assert.deepEqual(bucket.save(0), { tokens: 30, burst: 0 });
  });

  it("time adds nothing to a burst", () => {
    const bucket = new TokenBucket({ size: 10, oneTimeBurst: 1000, refillTimeMs: 1 }, 0);
    bucket.take(999);
    assert.deepEqual(bucket.save(1e9), { tokens: 10, burst: 1 });
  });

  it("a request larger than bucket and burst leaves a debt of what was not there", () => {
    const bucket = new TokenBucket({ size: 100, oneTimeBurst: 100, refillTimeMs: 100 }, 0);
    assert.equal(bucket.waitMs(1000, 0), 0);
    bucket.take(1000);
    assert.deepEqual(bucket.save(0), { tokens: -800, burst: 0 });
    assert.equal(bucket.waitMs(100, 0), 900);
    assert.equal(bucket.waitMs(1000, 799), 1);
    assert.equal(bucket.waitMs(1000, 800), 0);
  });

  it("the largest numbers of its schema are exact enough to grant what they promise", () => {
    const bucket = new TokenBucket({ size: Number.MAX_SAFE_INTEGER, oneTimeBurst: 0, refillTimeMs: 86_400_000 }, 0);
    bucket.take(2 ** 40);
    assert.equal(bucket.waitMs(2 ** 40, 0), 0);
    assert.equal(bucket.waitMs(0, 1e15), 0);
  });
});

function unexpected(): void {
  throw new Error("Nobody waits");
}

describe("throttle", () => {
  const none = { size: 0, oneTimeBurst: 0, refillTimeMs: 0 };
  const one = { size: 1, oneTimeBurst: 0, refillTimeMs: 1000 };

  function waiting(): { loop: FakeLoop; throttle: Throttle; resumed: () => number } {
    const loop = new FakeLoop();
    const throttle = new Throttle({ operations: one }, loop);
    let count = 0;
    const resume = (): void => {
      count++;
    };
    assert.equal(throttle.admit(10, resume), true);
    assert.equal(throttle.admit(10, resume), false);
    return { loop, throttle, resumed: () => count };
  }

  it("new limits let a queue that waits look again at once, and its timer is gone", () => {
    const { loop, throttle, resumed } = waiting();
    throttle.update({ operations: none });
    assert.deepEqual([resumed(), throttle.isWaiting(), loop.timerCount], [1, false, 0]);
    for (let count = 0; count < 100; count++) assert.equal(throttle.admit(1e9, unexpected), true);
  });

  it("a bucket that is given begins full, its burst too; the other stays as full as it was", () => {
    const { loop, throttle } = waiting();
    throttle.update({ bandwidth: { size: 100, oneTimeBurst: 50, refillTimeMs: 1000 } });
    assert.equal(
      throttle.admit(1, () => undefined),
      false,
      "the operation is spent",
    );
    loop.advance(1000);
    assert.equal(
      throttle.admit(150, () => undefined),
      true,
    );
    throttle.update({ operations: one });
    assert.deepEqual(throttle.save(), { bandwidth: { tokens: 0, burst: 0 }, operations: { tokens: 1, burst: 0 } });
  });

  it("new limits of a queue that does not wait call nobody", () => {
    const throttle = new Throttle(undefined, new FakeLoop());
    throttle.update({ operations: one });
    assert.equal(throttle.admit(0, unexpected), true);
  });

  it("a saved level of a bucket that is no more is dropped, one of a bucket that is new fills nothing over", () => {
    const loop = new FakeLoop();
    const from = new Throttle({ operations: { size: 50, oneTimeBurst: 7, refillTimeMs: 1000 } }, loop);
    const state = from.save();
    const without = new Throttle({}, loop);
    without.restore(new StateReader(state, "limiter"));
    assert.deepEqual(without.save(), { bandwidth: null, operations: null });
    const smaller = new Throttle({ operations: one }, loop);
    smaller.restore(new StateReader(state, "limiter"));
    assert.deepEqual(smaller.save(), { bandwidth: null, operations: { tokens: 1, burst: 0 } });
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
