// Needs: nothing.
import assert from "node:assert/strict";
import { nodeEventLoop } from "../../vmm/virtio/event-loop.js";

describe("event loop", () => {
  it("defers to a later turn, waits, and takes timers back", async () => {
    const seen: string[] = [];
    const before = nodeEventLoop.now();
    const cancel = nodeEventLoop.after(1, () => seen.push("cancelled"));
    nodeEventLoop.defer(() => seen.push("deferred"));
    cancel();
    assert.deepEqual(seen, []);
    await new Promise<void>((resolve) => nodeEventLoop.after(5, resolve));
    assert.deepEqual(seen, ["deferred"]);
    assert.ok(nodeEventLoop.now() - before >= 4);
  });
});
