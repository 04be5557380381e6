// Needs: a /dev/kvm of any kind, and `make build`. A disk that several VMs want, through the program's command line.
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { whyNoKvm } from "../helpers/kvm-guard.js";
import { asm, miniKernel, type MiniKernel } from "../helpers/mini-kernel.js";
import { bootWords, run, start } from "../helpers/program.js";
import { skip } from "../helpers/skip.js";

describe("kvm: a disk that several VMs want", function () {
  this.timeout(60_000);
  let folder = "";
  let busy: MiniKernel;
  let brief: MiniKernel;

  before(function () {
    const reason = whyNoKvm();
    if (reason !== undefined) skip(this, reason);
    folder = mkdtempSync(join(tmpdir(), "vmlet-test-"));
    busy = miniKernel(asm.print("up\n"), asm.spin());
    brief = miniKernel(asm.print("up\n"), asm.powerOff(7), asm.haltForEver());
  });
  after(() => {
    if (folder === "") return;
    for (const kernel of [busy, brief]) kernel.remove();
    rmSync(folder, { recursive: true });
  });

  it("two VMs share a disk only if neither writes it", async () => {
    const disk = join(folder, "disk.img");
    writeFileSync(disk, "");
    truncateSync(disk, 1 << 20);
    const words = (kernel: MiniKernel, option: string): string[] =>
      bootWords(kernel.path, "--quiet", "--disk", `path=${disk}${option}`);
    const first = start(words(busy, ",readonly"));
    try {
      await first.until("up");
      const ran = { status: 7, stdout: "up\n", stderr: "" };
      assert.deepEqual(await run(words(brief, ",readonly")), ran);
      const refused = await run(words(brief, ""));
      assert.deepEqual([refused.status, refused.stdout], [65, ""]);
      assert.match(
        refused.stderr,
        /^vmlet: .*disk\.img: in use by process \d+ \(.+\), which reads it .*\n.*readonly in both\n$/,
      );
      // At one's own risk.
      assert.deepEqual(await run(words(brief, ",lock=off")), ran);
      first.child.kill("SIGTERM");
      assert.equal((await first.ended).status, 143);
      assert.deepEqual(await run(words(brief, "")), ran);
    } finally {
      first.child.kill("SIGKILL");
    }
  });
});
