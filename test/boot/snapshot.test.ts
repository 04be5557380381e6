// Needs: a /dev/kvm of any kind that boots a guest. Linux, saved and restored.
import assert from "node:assert/strict";
import type { SpawnOptions } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { timeLimit } from "../../vmm/host/time-limit.js";
import { countBoot } from "../helpers/booted.js";
import { whyNoKvm } from "../helpers/kvm-guard.js";
import { PROGRAM, run, start } from "../helpers/program.js";
import { runLinuxCycles } from "../helpers/snapshot-cycles.js";
import { skip } from "../helpers/skip.js";

const BOOT_LIMIT_MS = 400_000;

describe("boot: snapshots", function () {
  this.timeout(BOOT_LIMIT_MS);
  let folder = "";

  before(function () {
    const reason = whyNoKvm();
    if (reason !== undefined) skip(this, reason);
    folder = mkdtempSync(join(tmpdir(), "vmlet-test-"));
  });
  after(() => {
    if (folder !== "") rmSync(folder, { recursive: true });
  });

  it("a program goes on, with its disk, timers and clock, in one VM after the other", async () => {
    await runLinuxCycles(folder, 2);
    countBoot();
  });

  it("a command that was waiting for its input gets it in another process, and its status comes out", async () => {
    const limit = timeLimit("a boot", BOOT_LIMIT_MS);
    const who = "read h </proc/sys/kernel/hostname; read u </proc/sys/kernel/random/uuid; echo $h $u $(date +%s)";
    const answer = `if [ $line = who ]; then ${who}; else echo got $line; fi`;
    const words = ["sh", "-c", `echo ready; while read line; do ${answer}; done; exit 9`];
    const options = ["--accel", "kvm", "--quiet", "--control", "vm.sock"];
    const stdio: SpawnOptions = { cwd: folder, stdio: ["pipe", "pipe", "pipe"] };
    const vm = start([PROGRAM, "boot", ...options, "--", ...words], stdio, limit);
    vm.child.stdin?.write("one\n");
    await vm.until("got one");
    countBoot();
    assert.equal(
      (await run([PROGRAM, "snapshot", "create", "--stop", "vm.sock", "waiting"], { cwd: folder })).status,
      0,
    );
    assert.equal((await vm.ended).status, 103);
    const restored = ["two\nthree\n", ""].map(async (input) => {
      const next = start([PROGRAM, "snapshot", "restore", "waiting"], stdio, limit);
      next.child.stdin?.end(input);
      const { status, stdout, stderr } = await next.ended;
      return [status, stdout, stderr];
    });
    assert.deepEqual(await Promise.all(restored), [
      [9, "got two\ngot three\n", ""],
      [9, "", ""],
    ]);
  });

  it("guests of one snapshot are no twins: each has random numbers, a name and the time of its own", async () => {
    const limit = timeLimit("a restore", 60_000);
    const tells = ["one", "two.example"].map(async (name) => {
      const words = [PROGRAM, "snapshot", "restore", "--hostname", name, "waiting"];
      const guest = start(words, { cwd: folder, stdio: ["pipe", "pipe", "pipe"] }, limit);
      guest.child.stdin?.end("who\n");
      const { status, stdout, stderr } = await guest.ended;
      assert.deepEqual([status, stderr], [9, ""]);
      const [host, random, seconds] = stdout.trim().split(" ");
      assert.equal(host, name);
      assert.ok(Math.abs(Number(seconds) - Date.now() / 1000) < 60, stdout);
      return random;
    });
    const [first, second] = await Promise.all(tells);
    assert.match(first ?? "", /^[\da-f-]{36}$/);
    assert.notEqual(first, second);
    for (const name of ["", "a b", "-x", "x".repeat(65)]) {
      const wrong = await run([PROGRAM, "snapshot", "restore", `--hostname=${name}`, "waiting"], { cwd: folder });
      assert.ok([64, 65].includes(wrong.status) && /--hostname|Host name/.test(wrong.stderr), wrong.stderr);
    }
  });
});
