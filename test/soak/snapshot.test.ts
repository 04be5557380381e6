// Needs: a /dev/kvm of any kind, and the built guest. Guests that are saved and go on, SOAK times (default: 1,000).
import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { whyNoKvm } from "../helpers/kvm-guard.js";
import { asm, miniKernel } from "../helpers/mini-kernel.js";
import { settledResources } from "../helpers/own-resources.js";
import { runCountingCycles, runLinuxCycles } from "../helpers/snapshot-cycles.js";
import { skip } from "../helpers/skip.js";

const CYCLES = Number(process.env["SOAK"] ?? "") || 1000;

describe("soak: snapshots", function () {
  this.timeout(CYCLES * 20_000);
  let folder = "";

  before(function () {
    const reason = whyNoKvm();
    if (reason !== undefined) skip(this, reason);
    folder = mkdtempSync(join(tmpdir(), "vmlet-soak-"));
  });
  after(() => {
    if (folder !== "") rmSync(folder, { recursive: true });
  });

  it(`a guest that counts in its memory, ${String(CYCLES)} times: nothing is lost, nothing is left`, async () => {
    const kernel = miniKernel(asm.countInMemory());
    try {
      await runCountingCycles(kernel.path, join(folder, "first"), 1, 3);
      const before = await settledResources();
      await runCountingCycles(kernel.path, join(folder, "counting"), 1, CYCLES);
      assert.deepEqual(await settledResources(), before);
    } finally {
      kernel.remove();
    }
  });

  it(`Linux with its devices, a file on a disk and timers, ${String(CYCLES)} times`, async () => {
    await runLinuxCycles(folder, CYCLES);
  });
});
