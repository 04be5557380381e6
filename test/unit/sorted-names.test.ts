// Needs: nothing.
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { sortedByName } from "../../vmm/agent/sorted-names.js";

describe("agent: names in order", () => {
  it("has the order of their bytes, whatever they are, and keeps those that are twice", async () => {
    for (const count of [0, 1, 2, 1023, 1024, 1025, 5000]) {
      const entries = Array.from({ length: count }, (_, at) => ({ nameBytes: randomBytes(1 + (at % 3)), at }));
      const expected = [...entries].sort((a, b) => a.nameBytes.compare(b.nameBytes) || a.at - b.at);
      assert.deepEqual(await sortedByName(entries), expected, String(count));
    }
  });

  it("lets others run between its pieces", async () => {
    const entries = Array.from({ length: 200_000 }, (_, at) => ({
      nameBytes: Buffer.from(String((at * 7919) % 200_000)),
    }));
    let turns = 0;
    const timer = setInterval(() => turns++, 1);
    const sorted = await sortedByName(entries);
    clearInterval(timer);
    assert.equal(sorted.length, entries.length);
    assert.ok(turns > 5, `${String(turns)} turns`);
  });
});
