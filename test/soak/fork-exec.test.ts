// Needs: a /dev/kvm of any kind that boots a guest, and minutes where kernel code is emulated.
import assert from "node:assert/strict";
import { timeLimit } from "../../vmm/host/time-limit.js";
import { forkExecOutput, forkExecScript } from "../helpers/fork-exec.js";
import { whyNoKvm } from "../helpers/kvm-guard.js";
import { PROGRAM, run } from "../helpers/program.js";
import { skip } from "../helpers/skip.js";

const CYCLES = 400;
const LIMIT_MS = 1_200_000;

describe("soak: programs", function () {
  this.timeout(LIMIT_MS);

  it(`${String(CYCLES)} cycles of fork, exec and pipe give what they should`, async function () {
    const reason = whyNoKvm();
    if (reason !== undefined) skip(this, reason);
    const command = [PROGRAM, "boot", "--accel", "kvm", "--quiet", "--", "sh", "-c", forkExecScript(CYCLES)];
    const { status, stdout, stderr } = await run(command, {}, timeLimit("the cycles", LIMIT_MS));
    assert.deepEqual([status, stderr, stdout === forkExecOutput(CYCLES)], [0, "", true]);
  });
});
