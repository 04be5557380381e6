// Needs: a /dev/kvm on which guests run, and a built program; duktape for JavaScript. The programs of docs/examples, each as
// its first lines say.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { countBoot } from "../helpers/booted.js";
import { makeBusyboxImage, whyNoBusybox } from "../helpers/busybox-image.js";
import { whyNoKvm } from "../helpers/kvm-guard.js";
import { PROGRAM, start } from "../helpers/program.js";
import { skip } from "../helpers/skip.js";

const EXAMPLES = "docs/examples";
const DUKTAPE = "/usr/bin/duk";
/** Of a boot on a host that is busy with other tests. */
const LIMIT_MS = 240_000;
/** Of a program: three VMs that share two processors with the tests of two more lanes take seconds for what takes one alone. */
const TIMEOUT_MS = 30_000;

interface Answer {
  readonly exitCode?: number;
  readonly signal?: string | null;
  readonly stdout: string;
  readonly stderr: string;
  readonly truncated?: boolean;
  readonly isTimeout?: boolean;
  readonly message?: string;
  readonly error?: string;
}

/** What vmlet says of a host that is busy with other tests is no fault of an example. */
function withoutSlowness(stderr: string): string {
  return stderr.replace(/^vmlet: this host is .* slower than usual: .*\n/gm, "");
}

describe("boot: the examples", function () {
  this.timeout(LIMIT_MS);
  let folder = "";
  let image = "";

  before(function () {
    const reason = whyNoKvm() ?? whyNoBusybox() ?? (existsSync(PROGRAM) ? undefined : "dist/vmlet.js is not built");
    if (reason !== undefined) skip(this, reason);
    folder = mkdtempSync(join(tmpdir(), "vmlet-examples-"));
    image = makeBusyboxImage(folder, [DUKTAPE]);
  });

  after(() => {
    if (folder === "") return;
    const state = join(folder, "state");
    const left = existsSync(state) ? readdirSync(state).filter((name) => name !== "names") : [];
    rmSync(folder, { recursive: true, force: true });
    assert.deepEqual(left, [], "VMs that are left");
  });

  const command = (name: string, ...words: string[]): string[] => [
    process.execPath,
    join(EXAMPLES, `${name}.mjs`),
    ...words,
  ];
  const environment = (): NodeJS.ProcessEnv => ({
    ...process.env,
    VMLET_STATE: join(folder, "state"),
    TIMEOUT_MS: String(TIMEOUT_MS),
  });
  const example = (words: readonly string[], input: string | Buffer = "") => {
    const [file = "", ...argv] = words;
    return spawnSync(file, argv, { input, env: environment(), encoding: "utf8", timeout: LIMIT_MS });
  };

  describe("untrusted code", () => {
    const run = (interpreter: readonly string[], code: string): Answer => {
      const { stdout, stderr, status } = example(command("untrusted-code", image, ...interpreter), code);
      assert.equal(status, 0, stderr);
      return JSON.parse(stdout) as Answer;
    };
    const script = (code: string): Answer => run(["sh"], code);

    it("JavaScript gives its output, or its error; it is ended if it takes too much time, memory or output", function () {
      if (!existsSync(DUKTAPE)) skip(this, "duktape is not installed");
      const javascript = (code: string): Answer => run(["duk"], code);
      const good = javascript('var sum = 0; for (var i = 1; i <= 100; i++) sum += i; print("sum", sum, "\u00e9");');
      countBoot();
      assert.deepEqual([good.exitCode, good.stdout, good.stderr, good.truncated], [0, "sum 5050 \u00e9\n", "", false]);
      const thrown = javascript('print("before"); throw new RangeError("too far");');
      assert.deepEqual([thrown.exitCode, thrown.stdout], [1, "before\n"]);
      assert.match(thrown.stderr, /RangeError: too far/);
      const greedy = javascript("var all = new Uint8Array(512 * 1024 * 1024); print(all.length);");
      assert.equal(greedy.exitCode, 1);
      assert.match(greedy.stderr, /alloc/);
      const endless = javascript('print("begun"); for (;;);');
      assert.deepEqual([endless.isTimeout, endless.stdout], [true, "begun\n"]);
      assert.match(endless.message ?? "", new RegExp(`took longer than ${String(TIMEOUT_MS)} ms`));
    });

    it("much output is cut, what needs a network or many processes fails, a crash is its signal", () => {
      const flood = script("yes abcdefg | head -c 1000000");
      assert.deepEqual([flood.exitCode, flood.truncated, flood.stdout.length], [0, true, 65_536]);
      assert.equal(script("ls /sys/class/net").stdout, "lo\n");
      const forks = script("i=0; while [ $i -lt 60 ]; do sleep 3 & i=$((i+1)); done; ps | grep -c 'sleep 3'");
      assert.ok(Number(forks.stdout) <= 32, forks.stdout);
      const crash = script("kill -SEGV $$");
      assert.deepEqual([crash.exitCode, crash.signal], [128 + 11, "SIGSEGV"]);
      assert.notEqual(script("echo x >/etc/passwd").exitCode, 0, "it is not root");
    });

    it("an interpreter that is not there has its status; an image that is not there ends the example", () => {
      const missing = run(["no-such-interpreter"], "");
      assert.equal(missing.exitCode, 127);
      const { status, stderr } = example(command("untrusted-code", join(folder, "none.tar"), "sh"));
      assert.equal(status, 1);
      assert.match(stderr, /none\.tar/);
    });
  });

  it("a server: answers with what the code has written, refuses what is no code, goes on after bad requests", async () => {
    const server = start(command("code-server", "0", image, "sh"), { env: environment() }, LIMIT_MS);
    try {
      const [address] = (await once(server.child.stdout ?? server.child, "data")) as [string];
      const [, port = ""] = /port: (\d+)/.exec(address) ?? [];
      const post = async (body: string | Buffer, signal?: AbortSignal): Promise<{ status: number } & Answer> => {
        const response = await fetch(`http://127.0.0.1:${port}/`, { method: "POST", body, signal: signal ?? null });
        return { status: response.status, ...((await response.json()) as Answer) };
      };
      const good = await Promise.all(["echo one", "echo two >&2; exit 3", "echo /tmp/*"].map((code) => post(code)));
      assert.deepEqual(good, [
        { status: 200, exitCode: 0, stdout: "one\n", stderr: "" },
        { status: 200, exitCode: 3, stdout: "", stderr: "two\n" },
        // Nothing of another request.
        { status: 200, exitCode: 0, stdout: "/tmp/code\n", stderr: "" },
      ]);
      assert.equal((await post(Buffer.alloc(2 ** 20 + 1, "#"))).status, 413);
      await assert.rejects(post("sleep 1000", AbortSignal.timeout(300)), { name: "TimeoutError" });
      const endless = await post("echo begun; sleep 1000");
      assert.deepEqual([endless.status, endless.stdout], [408, "begun\n"]);
      assert.equal((await post("echo still here")).stdout, "still here\n");
    } finally {
      server.child.kill("SIGTERM");
      const { status, stderr } = await server.ended;
      assert.deepEqual([status, withoutSlowness(stderr)], [0, ""]);
    }
  });

  it("a step of CI: its output, its exit code, its results; the checkout stays as it is", () => {
    const checkout = join(folder, "checkout");
    mkdirSync(join(checkout, "src"), { recursive: true });
    writeFileSync(join(checkout, "src/words"), "b\na\n");
    const test = "sort src/words; echo checked >&2; mkdir results; wc -l <src/words >results/count; rm -r src; exit ";
    const step = (status: number, results: string) =>
      example(command("ci-step", image, checkout, results, "sh", "-c", `${test}${String(status)}`));
    for (const status of [0, 7]) {
      const results = join(folder, `results-${String(status)}`);
      const ended = step(status, results);
      assert.deepEqual([ended.status, ended.stdout], [status, "a\nb\n"], ended.stderr);
      assert.match(ended.stderr, /^checked$/m);
      assert.equal(readFileSync(join(results, "count"), "utf8").trim(), "2");
    }
    assert.equal(readFileSync(join(checkout, "src/words"), "utf8"), "b\na\n");
    const missing = example(command("ci-step", image, checkout, join(folder, "none"), "no-such-command"));
    assert.equal(missing.status, 1);
    assert.match(missing.stderr, /no-such-command cannot be run/);
    assert.equal(existsSync(join(folder, "none")), false);
  });

  it("a step of CI that is ended takes its VM with it", async () => {
    const checkout = join(folder, "checkout");
    const step = start(
      command("ci-step", image, checkout, join(folder, "ended"), "sh", "-c", "echo begun; sleep 1000"),
      { env: environment() },
      LIMIT_MS,
    );
    await step.until("begun");
    step.child.kill("SIGTERM");
    const { status } = await step.ended;
    assert.equal(status, 1);
  });

  it("tests in parallel: each is run once, what fails or hangs is named, and the others go on", () => {
    const tests = join(folder, "tests");
    mkdirSync(tests, { recursive: true });
    for (let n = 0; n < 6; n++)
      writeFileSync(join(tests, `good-${String(n)}.test`), `echo ${String(n)} >>/ran; cat /ran\n`);
    writeFileSync(join(tests, "bad.test"), "echo expected 1, got 2; exit 4\n");
    writeFileSync(join(tests, "hangs.test"), "echo waits; sleep 1000\n");
    writeFileSync(join(tests, "shared"), "no test\n");
    const { status, stdout, stderr } = example(command("parallel-tests", image, tests, "3"));
    assert.equal(withoutSlowness(stderr), "");
    assert.deepEqual(stdout.split("\n"), [
      "FAILED (4) bad.test",
      "expected 1, got 2",
      "",
      ...[0, 1, 2, 3, 4, 5].map((n) => `ok good-${String(n)}.test`),
      "FAILED (137) hangs.test",
      "waits",
      "",
      "",
    ]);
    assert.equal(status, 1);
    for (const name of ["bad.test", "hangs.test"]) rmSync(join(tests, name));
    assert.equal(example(command("parallel-tests", image, tests, "2")).status, 0);
  });

  it("a monitor: the guest's outputs, input and exit code; a kernel that is none is one clear error", () => {
    const files = ["guest/out/fast/vmlinux", "guest/out/initramfs.cpio"];
    const bytes = randomBytes(100_000);
    const words = command("monitor", ...files, "sh", "-c", "cat; echo error >&2; exit 5");
    const { status, stdout, stderr } = spawnSync(words[0] ?? "", words.slice(1), { input: bytes, timeout: LIMIT_MS });
    assert.equal(status, 5, String(stderr));
    assert.ok(stdout.equals(bytes), `${String(stdout.length)} bytes`);
    assert.equal(withoutSlowness(String(stderr)), "error\n");
    const bad = example(command("monitor", "/etc/passwd", files[1] ?? "", "true"));
    assert.equal(bad.status, 1);
    assert.match(bad.stderr, /ERR_KERNEL_IMAGE/);
  });
});
