// Needs: a /dev/kvm of any kind, and `make build`. The example of docs/api.md, "Snapshots", as it is printed there, but
// for its guest: one of a few instructions.
import assert from "node:assert/strict";
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { section } from "../helpers/documents.js";
import { whyNoKvm } from "../helpers/kvm-guard.js";
import { asm, miniKernel } from "../helpers/mini-kernel.js";
import { run } from "../helpers/program.js";
import { skip } from "../helpers/skip.js";

describe("kvm: the API's example of snapshots", function () {
  this.timeout(60_000);

  it("prints what docs/api.md says, and leaves nothing", async function () {
    const reason = whyNoKvm();
    if (reason !== undefined) skip(this, reason);
    const found = /```ts\n([\s\S]*?)```\n+```\n([\s\S]*?)```/.exec(section("docs/api.md", "Snapshots"));
    assert.ok(found !== null);
    const [, example = "", output = ""] = found;
    const folder = mkdtempSync(join(tmpdir(), "vmlet-example-"));
    const kernel = miniKernel(asm.countInMemory());
    try {
      const program = example
        .replace('"vmlet"', JSON.stringify(resolve("dist/index.js")))
        .replace('"guest/out/default/vmlinux"', JSON.stringify(kernel.path))
        .replace(', initrd: "guest/out/initramfs.cpio"', "");
      assert.ok(!program.includes("guest/out"));
      writeFileSync(join(folder, "example.mjs"), program);
      const { stdout, stderr, status } = await run([process.execPath, "example.mjs"], { cwd: folder });
      assert.deepEqual([stdout, stderr, status], [output, "", 0]);
      assert.deepEqual(readdirSync(folder), ["example.mjs"]);
    } finally {
      kernel.remove();
      rmSync(folder, { recursive: true });
    }
    assert.ok(!existsSync(folder));
  });
});
