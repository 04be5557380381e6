// Needs: a /dev/kvm of any kind that boots a guest, and minutes where kernel code is emulated.
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { timeLimit } from "../../vmm/host/time-limit.js";
import { whyNoKvm } from "../helpers/kvm-guard.js";
import { PROGRAM, run } from "../helpers/program.js";
import { skip } from "../helpers/skip.js";

const LIMIT_MS = 600_000;

describe("soak: two vCPUs", function () {
  this.timeout(LIMIT_MS);

  it("Linux runs programs on both, without the I/O APIC and with eight disks", async function () {
    const reason = whyNoKvm();
    if (reason !== undefined) skip(this, reason);
    const folder = mkdtempSync(join(tmpdir(), "vmlet-test-"));
    try {
      // On a software KVM, with it Linux sends interrupts between processors by another way than a hypercall, which would
      // hang there. And without it, two of eight disks once had no interrupt.
      const disks = Array.from({ length: 8 }, (_, i) => join(folder, `noapic-${String(i)}.img`));
      for (const [i, path] of disks.entries()) {
        writeFileSync(path, `disk ${String(i)}\n`);
        truncateSync(path, 4096);
      }
      const script =
        "nproc; for cpu in 0 1; do taskset -c $cpu cut -d' ' -f39 /proc/self/stat; done; cat /dev/vd? | tr -d '\\0'";
      const options = ["--cpus", "2", "--cmdline", "noapic", ...disks.flatMap((path) => ["--disk", `path=${path}`])];
      const command = [PROGRAM, "boot", "--accel", "kvm", "--quiet", ...options, "--", "sh", "-c", script];
      const { status, stdout, stderr } = await run(command, {}, timeLimit("a boot", LIMIT_MS));
      const expected = ["2", "0", "1", ...disks.map((_, i) => `disk ${String(i)}`)];
      assert.deepEqual([status, stderr, stdout.trimEnd().split("\n")], [0, "", expected]);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});
