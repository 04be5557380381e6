// Needs: a /dev/kvm of any kind, and gcc; one test dist/vmlet.js. Every system call of a VM's life refused once, by a preloaded library.
import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { EXIT_HOST } from "../../vmm/host/exit-codes.js";
import { whyNoKvm } from "../helpers/kvm-guard.js";
import { asm, miniKernel, type MiniKernel } from "../helpers/mini-kernel.js";
import { commandsWith } from "../helpers/process-tree.js";
import { bootWords } from "../helpers/program.js";
import type { RefusedRun } from "../helpers/refused-calls.js";
import { skip } from "../helpers/skip.js";

const EINTR = 4;
const EAGAIN = 11;
const ENOMEM = 12;
const EMFILE = 24;
/** An attendant goes behind the process that it has attended. */
const LEAVING_MS = 10_000;

describe("kvm: refused calls", function () {
  this.timeout(60_000);
  let folder: string | undefined;
  let library: string;
  let kernel: MiniKernel;

  before(function () {
    const reason = whyNoKvm();
    if (reason !== undefined) skip(this, reason);
    folder = mkdtempSync(join(tmpdir(), "vmlet-test-"));
    library = join(folder, "refuse-calls.so");
    const flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"];
    execFileSync("gcc", [...flags, "-o", library, resolve("test/programs/refuse-calls.c"), "-ldl"]);
    kernel = miniKernel(asm.print("up\n"), asm.milestone(123), asm.powerOff(7), asm.haltForEver());
  });
  after(() => {
    if (folder === undefined) return;
    rmSync(folder, { recursive: true });
    kernel.remove();
  });

  function runs(threads: string, kind: string, errno: number): RefusedRun[] {
    const script = resolve("build/test/helpers/refused-calls.js");
    const { status, signal, stdout, stderr } = spawnSync(
      process.execPath,
      [script, kernel.path, threads, kind, String(errno)],
      { env: { ...process.env, LD_PRELOAD: library }, encoding: "utf8", timeout: 50_000 },
    );
    assert.deepEqual([status, signal, stderr], [0, null, ""], stdout);
    const lines = stdout
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line) as RefusedRun);
    const [plain, ...refused] = lines;
    assert.equal(plain?.message, "poweroff 7");
    // A thread is kicked only if it has come so far.
    assert.ok(refused.length > 0 || kind === "tgkill", "no such call was made");
    for (const { nth, left } of refused) assert.equal(left, "", `call ${String(nth)}`);
    return refused;
  }

  for (const kind of ["kvm", "kvm_run", "open", "pread", "mmap", "eventfd", "timer"]) {
    it(`${kind}: interrupted, it is made again`, () => {
      for (const { nth, message } of runs("main-first", kind, EINTR)) {
        assert.equal(message, "poweroff 7", `call ${String(nth)}`);
      }
    });
  }

  it("kvm_run, tgkill: EAGAIN is no error, and no vCPU is forgotten", () => {
    for (const kind of ["kvm_run", "tgkill"]) {
      for (const { nth, message } of runs("threads", kind, EAGAIN)) {
        assert.equal(message, "poweroff 7", `${kind} ${String(nth)}`);
      }
    }
  });

  for (const mode of ["off", "on", "strict"]) {
    it(`a limit of open files, from too few for anything on, jail ${mode}: it runs, or one error says what helps; no process is left`, async function () {
      if (!existsSync("dist/vmlet.js")) skip(this, "dist/vmlet.js is not built");
      const guest = bootWords(kernel.path, "--cpus", "2", "--quiet", "--jail", mode);
      const outcomes = [19, 20, 21, 22, 23, 24, 25, 26, 28, 32, 64].map((limit) => {
        const command = `ulimit -n ${String(limit)}; exec "$@"`;
        const { status, stderr } = spawnSync("sh", ["-c", command, "sh", ...guest], { encoding: "utf8", input: "" });
        const what = `${String(limit)} files: ${String(status)} ${stderr}`;
        if (status === 7) return "ran";
        assert.equal(status, EXIT_HOST, what);
        assert.match(stderr, /^vmlet: .*(EMFILE|too many open files).*\nvmlet: what helps: .*ulimit -n\n$/, what);
        return "refused";
      });
      assert.deepEqual([outcomes[0], outcomes.at(-1)], ["refused", "ran"]);
      const end = performance.now() + LEAVING_MS;
      while (commandsWith(kernel.path).length > 0) {
        assert.ok(performance.now() < end, commandsWith(kernel.path).join("\n"));
        await sleep(50);
      }
    });
  }

  const refusals: [kind: string, threads: string, errno: number, message: RegExp, cure: RegExp][] = [
    ["kvm", "main-first", ENOMEM, /^KVM_\w+ failed with ENOMEM \(12\)$/, /memory/],
    ["kvm_run", "threads", ENOMEM, /^KVM_RUN failed with ENOMEM/, /memory/],
    ["open", "main-first", EMFILE, /^\/\S+ cannot be opened.*\(EMFILE\)$/, /ulimit -n/],
    ["mmap", "main-first", ENOMEM, /^mmap failed with ENOMEM/, /memory/],
    ["eventfd", "main-first", EMFILE, /^eventfd failed with EMFILE/, /ulimit -n/],
    ["timer", "main-first", EAGAIN, /^timer_\w+ failed with EAGAIN/, /ulimit -i/],
    [
      "thread",
      "threads",
      EAGAIN,
      /^The thread of vCPU \d cannot be started: no more threads are allowed$/,
      /pids\.max/,
    ],
    ["epoll", "threads", EMFILE, /^The thread of vCPU \d cannot be started: too many open files$/, /ulimit -n/],
  ];
  for (const [kind, threads, errno, message, cure] of refusals) {
    it(`${kind}, errno ${String(errno)}: one error that says what helps, and nothing left behind`, () => {
      const all = runs(threads, kind, errno);
      // What is only asked to know better, such as the counter's rate, may be refused.
      const failed = all.filter((run) => run.message !== "poweroff 7");
      assert.ok(failed.length > all.length / 2);
      for (const run of failed) {
        const what = `call ${String(run.nth)}: ${run.result} ${run.message}`;
        assert.match(run.result, /^ERR_(HOST|SYSTEM_CALL|KVM_IOCTL)$/, what);
        assert.match(run.message, message, what);
        assert.match(run.cure ?? "", cure, what);
      }
    });
  }
});
