// Needs: a /dev/kvm of any kind, and dist/. That the bundle's code cache comes from a boot: one that holds
// every function works too, and makes each start slower, so nobody would notice. And what an error looks like that nobody catches.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { whyNoKvm } from "../helpers/kvm-guard.js";
import { skip } from "../helpers/skip.js";
import { V8_FLAGS } from "../../vmm/host/v8-flags.js";

describe("kvm: bundle", function () {
  this.timeout(60_000);

  it("the code cache holds what a boot of a few instructions calls", function () {
    const reason = whyNoKvm();
    if (reason !== undefined) skip(this, reason);
    const folder = mkdtempSync(join(tmpdir(), "vmlet-test-"));
    try {
      const cache = join(folder, "cache");
      const script = "vmm/bundle/code-cache.mjs";
      const result = spawnSync(process.execPath, [...V8_FLAGS, script, "booted", cache], {
        encoding: "utf8",
      });
      assert.equal(result.status, 0, result.stderr);
      const all = spawnSync(process.execPath, [...V8_FLAGS, script, "all", `${cache}.all`], {
        encoding: "utf8",
      });
      assert.equal(all.status, 0, all.stderr);
      assert.ok(statSync(cache).size < statSync(`${cache}.all`).size);
      assert.ok(Math.abs(statSync("dist/cli.cache").size - statSync(cache).size) < 0.1 * statSync(cache).size);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  it("an error of the library that nobody catches is shown with its place, not with all of the library", () => {
    const script = 'require("./dist/index.js").Vm.start({ rootfs: "/no/such/folder" })';
    const { status, stderr } = spawnSync(process.execPath, ["-e", script], { encoding: "utf8", timeout: 50_000 });
    assert.equal(status, 1);
    assert.match(stderr, /ConfigError: rootfs "\/no\/such\/folder": no such folder/);
    assert.ok(stderr.length < 4000, `${String(stderr.length)} characters`);
  });
});
