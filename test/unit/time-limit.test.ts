// Needs: nothing. Limits grow with what this host is slower at, and say so once.
import assert from "node:assert/strict";
import * as module from "../../vmm/host/time-limit.js";

const { guestSlowness, hostSlowness, slownessOf } = module;

describe("time limit", () => {
  it("the middle turn counts: one that was interrupted does not", () => {
    assert.equal(slownessOf([2, 2, 90]), 1);
    assert.equal(slownessOf([8, 7, 6, 90, 2]), 3.5);
    // A fast host keeps the limit; it is no reason to be impatient.
    assert.equal(slownessOf([0.5, 0.5, 0.5]), 1);
  });

  it("a guest is as slow as the probe says", () => {
    assert.equal(guestSlowness(5000), 1);
    assert.equal(guestSlowness(0.4), 4);
  });

  it("this host has a slowness", () => {
    const first = hostSlowness();
    assert.ok(first >= 1 && first < 1000, String(first));
    assert.equal(hostSlowness(), first);
  });

  it("is as it was where the host is not slower, stretched and said once where it is", async () => {
    // A module of its own: the one that is loaded may have spoken before, of a limit of this run.
    const fresh = new URL("../../vmm/host/time-limit.js?fresh", import.meta.url).href;
    const { timeLimit } = (await import(fresh)) as typeof module;
    const said: string[] = [];
    const say = (line: string): void => void said.push(line);
    assert.equal(timeLimit("the start", 120_000, 1, say), 120_000);
    assert.equal(timeLimit("the start", 120_000, 1.4, say), 120_000);
    // Longer, but nothing to wait for.
    assert.equal(timeLimit("the end of a command", 1000, 3.21, say), 3300);
    assert.deepEqual(said, []);
    assert.equal(timeLimit("the start", 120_000, 3.21, say), 385_200);
    assert.equal(timeLimit("a sign of life", 60_000, 3.21, say), 192_600);
    assert.deepEqual(said, ["this host is 3.2 times slower than usual: the start may take 385 s, not 120 s"]);
  });
});
