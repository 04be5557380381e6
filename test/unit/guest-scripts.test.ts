// Needs: bash. What the build scripts of guest/ say and decide, without building anything.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

function bash(script: string, env: NodeJS.ProcessEnv = {}) {
  // Without standard input: Node's is a socket, for which bash takes itself to be a remote login and reads its files.
  const stdio = ["ignore", "pipe", "pipe"] as const;
  return spawnSync("bash", ["-euc", script], { encoding: "utf8", stdio: [...stdio], env: { ...process.env, ...env } });
}

describe("guest scripts: progress", function () {
  this.timeout(20_000);

  it("in a log: one line for the beginning, more for a long step, with what is to go of all steps", () => {
    const { stderr } = bash(`. guest/progress
      progress_begin "a short step" 5; progress_at 30; progress_at 60; progress_end
      progress_begin "a long step" 200; progress_at 5; progress_at 30; progress_at 31; progress_at 60; progress_end`);
    const lines = stderr.trimEnd().split("\n");
    assert.deepEqual(lines, [
      "vmlet: a short step, about 5 s to go",
      "vmlet: a long step, about 3 min 20 s to go",
      "vmlet: a long step, about 3 min 20 s to go",
      "vmlet: a long step, about 3 min 20 s to go",
    ]);
    const later = bash('. guest/progress; progress_begin "packages" 20', {
      VMLET_PROGRESS_STEP: "1/3",
      VMLET_PROGRESS_LATER: "190",
    });
    assert.equal(later.stderr, "vmlet: [1/3] packages, about 3 min 30 s to go\n");
  });

  it("on a terminal: one line that renews itself and goes away", () => {
    const script = '. guest/progress; progress_begin "a step" 5; progress_run sleep 1.5; progress_end; echo done';
    const { stdout } = spawnSync("script", ["-qec", `bash -euc '${script}'`, "/dev/null"], { encoding: "utf8" });
    assert.match(
      stdout,
      /^\rvmlet: a step, about 5 s to go\x1b\[K\rvmlet: a step, \d+ % after \d s, .*\x1b\[K\r\x1b\[Kdone\r\n$/,
    );
  });

  it("a command keeps its status, and an interrupt ends it with all that it has started", () => {
    assert.equal(bash(". guest/progress; s=0; progress_run bash -c 'exit 7' || s=$?; exit $s").status, 7);
    const { stdout } = bash(`. guest/progress
      work() { sleep 987.5 & sleep 987.5; }
      (trap progress_stop EXIT; trap 'exit 143' TERM; progress_run work) & sleep 0.5; kill $!; wait $! || echo "ended $?"
      pgrep -fc '^sleep 987.5$' || true`);
    assert.equal(stdout, "ended 143\n0\n");
  });
});

describe("guest scripts: packages", () => {
  const list = (...options: string[]): string[] =>
    spawnSync("guest/packages", [...options, "--list"], { encoding: "utf8" })
      .stdout.trimEnd()
      .split("\n");

  it("what builds a guest, the lab, the tests and the Intel lab are lists of their own", () => {
    const builds = list();
    assert.ok(builds.includes("linux-source-6.1") && builds.includes("busybox-static"), builds.join());
    for (const package_ of ["docker.io", "chromium", "passt", "bochs"]) assert.ok(!builds.includes(package_), package_);
    assert.ok(list("--lab").includes("qemu-system-x86"));
    const tests = list("--tests");
    for (const package_ of ["docker.io", "runc", "chromium", "passt", "mmdebstrap", "qemu-system-x86"]) {
      assert.ok(tests.includes(package_), package_);
    }
    assert.ok(list("--intel").includes("bochs"));
    assert.equal(spawnSync("guest/packages", ["--test"]).status, 64);
  });

  it("each skip for want of a program is of one that --tests brings", () => {
    const helper = readFileSync("test/helpers/docker-host.ts", "utf8");
    const wanted = /not installed: .* \(Debian: ([^)]*)\)/.exec(helper)?.[1]?.split(" ") ?? [];
    assert.ok(wanted.length > 0);
    const tests = list("--tests");
    assert.deepEqual(
      wanted.filter((name) => !tests.includes(name)),
      [],
    );
  });
});

describe("guest scripts: which kernel is built", () => {
  it("a kernel of other inputs is removed, one of these inputs stays; what is in the cache takes no time", () => {
    const folder = mkdtempSync(join(tmpdir(), "vmlet-test-"));
    try {
      const env = { VMLET_GUEST_OUT: join(folder, "out"), VMLET_CACHE: join(folder, "cache") };
      const refresh = () =>
        spawnSync("guest/kernel/build", ["--refresh", "fast"], { encoding: "utf8", env: { ...process.env, ...env } });
      const kernel = join(folder, "out/fast");
      mkdirSync(kernel, { recursive: true });
      writeFileSync(join(kernel, "key"), "of an older configuration\n");
      const first = refresh();
      assert.equal(first.status, 0, first.stderr);
      assert.ok(Number(first.stdout) > 30, first.stdout);
      assert.equal(bash(`test -e '${kernel}'`).status, 1);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});
