// Needs: bash; root for the case of a user without a home. The program and the build scripts keep things in the same place.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { chmodSync, chownSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { cacheFolder } from "../../vmm/host/cache-folder.js";
import { skip } from "../helpers/skip.js";

function ofScripts(environment: NodeJS.ProcessEnv): string | undefined {
  const script = '. guest/cache-folder && printf %s "$cache"';
  const { status, stdout } = spawnSync("bash", ["-euc", script], {
    env: { PATH: process.env["PATH"], ...environment },
    encoding: "utf8",
  });
  return status === 0 ? stdout : undefined;
}

describe("cache folder", () => {
  const home = mkdtempSync(join(tmpdir(), "vmlet-test-"));
  after(() => {
    rmSync(home, { recursive: true });
  });

  for (const [name, environment, expected] of [
    ["VMLET_CACHE", { VMLET_CACHE: "/a b", XDG_CACHE_HOME: "/x", HOME: home }, "/a b"],
    ["XDG_CACHE_HOME", { XDG_CACHE_HOME: "/x", HOME: home }, "/x/vmlet"],
    ["empty words are none", { VMLET_CACHE: "", XDG_CACHE_HOME: "", HOME: home }, `${home}/.cache/vmlet`],
    ["HOME", { HOME: home }, `${home}/.cache/vmlet`],
    ["no home to write to", { HOME: "/nonexistent" }, `/var/tmp/vmlet-${String(process.geteuid?.())}`],
  ] as const) {
    it(name, () => {
      assert.equal(cacheFolder(environment), expected);
      assert.equal(ofScripts(environment), expected);
    });
  }

  it("a home, caches or cache of somebody else, or of everybody, is not taken", function () {
    if (process.geteuid?.() !== 0) skip(this, "being two users needs root");
    const theirs = join(home, "theirs");
    mkdirSync(join(theirs, ".cache/vmlet"), { recursive: true });
    const open = join(home, "open");
    mkdirSync(open);
    chmodSync(open, 0o777);
    chownSync(theirs, 64_999, 64_999);
    chownSync(join(theirs, ".cache"), 64_999, 64_999);
    const fallback = "/var/tmp/vmlet-0";
    for (const [environment, expected] of [
      [{ HOME: theirs }, fallback],
      [{ XDG_CACHE_HOME: join(theirs, ".cache"), HOME: home }, fallback],
      [{ XDG_CACHE_HOME: open, HOME: home }, fallback],
      [{ VMLET_CACHE: theirs, HOME: home }, undefined],
      [{ VMLET_CACHE: open, HOME: home }, undefined],
    ] as const) {
      assert.equal(cacheFolder(environment), expected, JSON.stringify(environment));
      assert.equal(ofScripts(environment), expected, JSON.stringify(environment));
    }
  });

  it("somebody else's folder is not taken for the results of a build, whatever lies in it (make OUT=)", function () {
    if (process.geteuid?.() !== 0) skip(this, "being two users needs root");
    const out = join(home, "out");
    mkdirSync(out);
    // As new as can be: nothing to build.
    for (const name of ["initramfs.cpio", "tiny.cpio"]) writeFileSync(join(out, name), "");
    chownSync(out, 64_999, 64_999);
    for (const target of ["init", "kernel"]) {
      const argv = ["--no-print-directory", "-C", "guest", `OUT=${out}`, target];
      const { status, stderr } = spawnSync("make", argv, { encoding: "utf8" });
      assert.notEqual(status, 0, target);
      assert.match(stderr, /OUT=\S+ is not a folder of ours alone/);
    }
  });

  it("somebody else's folder in /var/tmp is not taken", function () {
    if (process.geteuid?.() !== 0) skip(this, "being two users needs root");
    const uid = 64_999;
    const folder = `/var/tmp/vmlet-${String(uid)}`;
    const run = (): { status: number | null; stdout: string } => {
      const script = '. guest/cache-folder && printf %s "$cache"';
      const { status, stdout } = spawnSync(
        "setpriv",
        [`--reuid=${String(uid)}`, "--regid=64999", "--clear-groups", "bash", "-euc", script],
        { env: { PATH: process.env["PATH"], HOME: "" }, encoding: "utf8" },
      );
      return { status, stdout };
    };
    try {
      assert.deepEqual(run(), { status: 0, stdout: folder });
      rmSync(folder, { recursive: true });
      assert.equal(spawnSync("mkdir", ["-m", "700", folder]).status, 0);
      assert.deepEqual(run(), { status: 73, stdout: "" });
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });
});
