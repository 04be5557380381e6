// Needs: a /dev/kvm of any kind, and `make build`. `vmlet migrate`, `vmlet snapshot receive` and `--diff` as people type them.
import assert from "node:assert/strict";
import { existsSync, mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { whyNoKvm } from "../helpers/kvm-guard.js";
import { asm, miniKernel, type MiniKernel } from "../helpers/mini-kernel.js";
import { skipInJail } from "../helpers/jail-lane.js";
import { PROGRAM, bootWords, run, start, type Running } from "../helpers/program.js";
import { skip } from "../helpers/skip.js";

const KILLS = 8;

interface Watched extends Running {
  readonly texts: Readonly<Record<"stdout" | "stderr", string>>;
}

describe("kvm: vmlet migrate", function () {
  this.timeout(120_000);
  let folder: string;
  let counting: MiniKernel;
  const at = (name: string): string => join(folder, name);
  const vmlet = (...words: string[]) => run([PROGRAM, ...words], { cwd: folder });

  before(function () {
    const reason = whyNoKvm();
    if (reason !== undefined) skip(this, reason);
    folder = mkdtempSync(join(tmpdir(), "vmlet-migrate-"));
    counting = miniKernel(asm.countInMemory());
    skipInJail(this, "a guest that moves has a monitor that makes a connection");
  });
  after(() => {
    counting.remove();
    rmSync(folder, { recursive: true });
  });

  /** A program, and what it has said so far. */
  function begin(words: readonly string[]): Watched {
    const running = start(words, { cwd: folder });
    const texts = { stdout: "", stderr: "" };
    for (const name of ["stdout", "stderr"] as const) {
      running.child[name]?.on("data", (text: string) => (texts[name] += text));
    }
    return { ...running, texts };
  }

  async function boots(control: string): Promise<Watched> {
    const vm = begin(bootWords(counting.path, "--control", at(control)));
    await vm.until("\xfe\xff");
    return vm;
  }

  async function until(isSo: () => boolean): Promise<void> {
    for (let waited = 0; !isSo(); waited += 10) {
      assert.ok(waited < 60_000, "it does not happen");
      await new Promise((done) => setTimeout(done, 10));
    }
  }

  function assertCounts(text: string): void {
    const wrong = [...Buffer.from(text, "latin1")].findIndex((byte, index) => byte !== ((1 + index) & 0xff));
    assert.equal(wrong, -1);
  }

  it("from process to process, over a Unix socket and over TCP: its output goes on where it stopped", async () => {
    const first = await boots("a.sock");
    const second = begin([PROGRAM, "snapshot", "receive", "--control", "b.sock", "unix:moves.sock"]);
    await until(() => second.texts.stderr.includes("waiting for a guest at unix:moves.sock"));
    assert.equal(statSync(at("moves.sock")).mode & 0o777, 0o600);
    const moved = await vmlet("migrate", "--json", "a.sock", "unix:moves.sock");
    assert.equal(moved.status, 0, moved.stderr);
    const { to, stop_ms, total_ms, bytes, rounds } = JSON.parse(moved.stdout) as Record<string, unknown>;
    assert.equal(to, `unix:${at("moves.sock")}`);
    assert.ok(
      [stop_ms, total_ms, bytes].every((value) => typeof value === "number" && value > 0) && Array.isArray(rounds),
    );
    const left = await first.ended;
    assert.equal(left.status, 103);
    assert.ok(left.stderr.includes(`the guest has moved to unix:${at("moves.sock")}`), left.stderr);
    assert.ok(!existsSync(at("moves.sock")));

    const third = begin([PROGRAM, "snapshot", "receive", "tcp:127.0.0.1:0"]);
    await until(() => /at tcp:127\.0\.0\.1:\d+\n/.test(third.texts.stderr));
    const [, address = ""] = /at (tcp:\S+)/.exec(third.texts.stderr) ?? [];
    const again = await vmlet("migrate", "b.sock", address);
    assert.match(
      again.stdout,
      /^moved to tcp:127\.0\.0\.1:\d+: [\d.]+ MiB in \d+ rounds; the guest rested for \d+ ms\n$/,
    );
    const middle = await second.ended;
    await third.until("\xfe\xff");
    third.child.kill("SIGTERM");
    const last = await third.ended;
    assert.deepEqual([middle.status, last.status], [103, 143]);
    assertCounts(left.stdout + middle.stdout + last.stdout);
  });

  it("a receiver that is killed at any moment: the guest goes on at one end", async () => {
    const vm = await boots("killed.sock");
    for (let round = 0; round < KILLS; round++) {
      const receiver = begin([PROGRAM, "snapshot", "receive", "--quiet", "unix:kill.sock"]);
      await until(() => existsSync(at("kill.sock")));
      const moving = vmlet("migrate", "killed.sock", "unix:kill.sock");
      await new Promise((done) => setTimeout(done, 120 + 25 * round));
      receiver.child.kill("SIGKILL");
      const gone = await receiver.ended;
      const moved = await moving;
      rmSync(at("kill.sock"), { force: true });
      if (moved.status === 0) {
        // It had the guest, which went with it.
        const { stdout } = await vm.ended;
        assertCounts(stdout + gone.stdout);
        return;
      }
      assert.equal(gone.stdout, "", moved.stderr);
      const { length } = vm.texts.stdout;
      await until(() => vm.texts.stdout.length > length + 300);
    }
    vm.child.kill("SIGTERM");
    assertCounts((await vm.ended).stdout);
  });

  it("what cannot be is said, and leaves nothing: addresses, nobody there, a signal while it waits", async () => {
    for (const words of [["snapshot", "receive"], ["snapshot", "receive", "a", "b"], ["migrate", "x"], ["migrate"]]) {
      assert.equal((await vmlet(...words)).status, 64, words.join(" "));
    }
    const wrong = await vmlet("snapshot", "receive", "tcp:7000");
    assert.match(wrong.stderr, /Address "tcp:7000": not unix:PATH, tcp:HOST:PORT/);
    assert.match((await vmlet("migrate", "a", "udp:x:1")).stderr, /Address "udp:x:1": not unix:PATH/);
    assert.match((await vmlet("snapshot", "receive", "unix:/nowhere/x.sock")).stderr, /no such folder: \/nowhere/);
    const vm = await boots("alone.sock");
    const nobody = await vmlet("migrate", "alone.sock", "unix:nobody.sock");
    assert.match(nobody.stderr, /nobody answers: no such file/);
    assert.notEqual(nobody.status, 0);
    vm.child.kill("SIGTERM");
    assertCounts((await vm.ended).stdout);
    const waits = begin([PROGRAM, "snapshot", "receive", "unix:waits.sock"]);
    await until(() => waits.texts.stderr.includes("waiting"));
    waits.child.kill("SIGTERM");
    assert.equal((await waits.ended).status, 143);
    assert.ok(!existsSync(at("waits.sock")));
  });

  it("--diff: a small one over another, which a guest goes on from", async () => {
    const vm = await boots("diff.sock");
    assert.equal((await vmlet("snapshot", "create", "--watch", "diff.sock", "base")).status, 0);
    const made = await vmlet("snapshot", "create", "--json", "--stop", "--diff", "base", "diff.sock", "over");
    assert.equal(made.status, 0, made.stderr);
    const first = await vm.ended;
    const inspected = await vmlet("snapshot", "inspect", "--verify", "over");
    assert.match(inspected.stdout, /^base +.*base\n +snapshot [\da-f]{32}; \d+ pages have changed since$/m);
    const next = begin([PROGRAM, "snapshot", "restore", "over"]);
    await next.until("\xfe\xff");
    next.child.kill("SIGTERM");
    assertCounts(first.stdout + (await next.ended).stdout);
    rmSync(at("base"), { recursive: true });
    const missing = await vmlet("snapshot", "restore", "over");
    assert.equal(missing.status, 65);
    assert.match(missing.stderr, /over: needs its base, snapshot [\da-f]{32}: .*base: no such file/);
  });
});
