// Needs: a /dev/kvm of any kind, and `make build`. What the program writes, and where it cannot: a guest's
// status is never lost to a file.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { copyFileSync, existsSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { Report } from "../../vmm/cli/report.js";
import { whyNoKvm } from "../helpers/kvm-guard.js";
import { asm, miniKernel, type MiniKernel } from "../helpers/mini-kernel.js";
import { PROGRAM, bootWords, run, start } from "../helpers/program.js";
import { skip } from "../helpers/skip.js";

describe("kvm: outputs", function () {
  this.timeout(60_000);
  let folder: string;
  let busy: MiniKernel;
  let ends: (status: number) => string;
  const kernels: MiniKernel[] = [];
  const at = (name: string): string => join(folder, name);
  /** A shell with the words of a boot as "$@". */
  const shell = (script: string, words: readonly string[]) =>
    run(["sh", "-c", script, "sh", ...words], { cwd: folder });

  before(function () {
    const reason = whyNoKvm();
    if (reason !== undefined) skip(this, reason);
    folder = mkdtempSync(join(tmpdir(), "vmlet-outputs-"));
    busy = miniKernel(asm.print("up\n"), asm.spin());
    ends = (status) => {
      const kernel = miniKernel(asm.print("up\n"), asm.powerOff(status), asm.haltForEver());
      kernels.push(kernel);
      return kernel.path;
    };
    kernels.push(busy);
  });

  after(() => {
    for (const kernel of kernels) kernel.remove();
    rmSync(folder, { recursive: true });
  });

  it("standard output on a full disk is no closed pipe: a line, and a status of its own", async () => {
    const full = await shell('"$@" >/dev/full', bootWords(ends(0), "--quiet"));
    assert.equal(full.status, 74, full.stderr);
    assert.match(full.stderr, /standard output: no space left on the device \(ENOSPC\)/);
    assert.match(full.stderr, /3 bytes are lost; the guest itself has ended with 0/);
    const failing = await shell('"$@" >/dev/full', bootWords(ends(9), "--quiet"));
    assert.equal(failing.status, 9);
    const closed = await shell('{ "$@"; echo "status $?" >&2; } | true', bootWords(busy.path, "--quiet"));
    assert.match(closed.stderr, /status 141\n$/);
    assert.doesNotMatch(closed.stderr, /standard output/);
  });

  it("commands that print, too", async () => {
    for (const words of [
      ["--help"],
      ["boot", "--help"],
      ["stats", "--help"],
      ["bench", "--list"],
      ["doctor"],
      ["--version"],
    ]) {
      const full = await shell('"$@" >/dev/full', [PROGRAM, ...words]);
      assert.equal(full.status, 74, `${words.join(" ")} ${full.stderr}`);
      assert.match(full.stderr, /^vmlet: Standard output cannot be written: /m);
      const closed = await shell('(sleep 0.2; "$@"; echo "status $?" >&2) | true', [PROGRAM, ...words]);
      assert.equal(closed.stderr, "status 141\n", words.join(" "));
    }
  });

  it("metrics and report on a full disk, or to nobody, end no guest and hold up none", async () => {
    execFileSync("mkfifo", [at("m"), at("r")]);
    const full = await run(bootWords(ends(9), "--metrics", "/dev/full", "--report", "/dev/full"));
    assert.equal(full.status, 9);
    assert.match(full.stderr, /--metrics \/dev\/full: cannot be written: no space left/);
    const nobody = await run(bootWords(ends(9), "--metrics", at("m"), "--report", at("r")));
    assert.equal(nobody.status, 9);
    assert.match(
      nobody.stderr,
      /--report .*: a FIFO that nobody reads|--report .*a device that is not there, or a FIFO/,
    );
    const vm = start(bootWords(busy.path, "--metrics", at("m")));
    await vm.until("up");
    await sleep(1200);
    vm.child.kill("SIGTERM");
    const { status, stderr } = await vm.ended;
    assert.equal(status, 143);
    assert.equal(stderr.match(/cannot be written/g)?.length, 1, stderr);
    assert.match(stderr, /[23] lines are lost/);
  });

  it("the report's hash is of the kernel that was booted, whatever becomes of the file", async () => {
    const kernel = at("kernel");
    copyFileSync(busy.path, kernel);
    const expected = createHash("sha256").update(readFileSync(kernel)).digest("hex");
    const vm = start(bootWords(kernel, "--report", at("report")));
    await vm.until("up");
    writeFileSync(kernel, "overwritten in place");
    vm.child.kill("SIGTERM");
    assert.equal((await vm.ended).status, 143);
    const report = JSON.parse(readFileSync(at("report"), "utf8")) as Report;
    assert.deepEqual([report.kernel.sha256, report.exit_code], [expected, 143]);
  });

  it("a kernel or initramfs that is no file is refused and not waited for", async () => {
    execFileSync("mkfifo", [at("kernel.fifo")]);
    const socket = createServer().listen(at("kernel.sock"));
    symlinkSync("kernel.loop", at("kernel.loop"));
    for (const path of [
      "kernel.fifo",
      "kernel.sock",
      "kernel.loop",
      ".",
      "/dev/zero",
      "/dev/null",
      "/proc/version",
      "mine/x",
      "none",
    ]) {
      for (const option of ["--kernel", "--initrd"]) {
        const words = [
          "--accel",
          "kvm",
          "--memory",
          "32",
          ...(option === "--kernel" ? ["--no-initrd"] : ["--kernel", busy.path]),
        ];
        const { status, stderr } = await run(
          [PROGRAM, "boot", ...words, option, path, "--quiet"],
          { cwd: folder },
          10_000,
        );
        assert.equal(status, 65, `${option} ${path}: ${stderr}`);
        assert.match(stderr, new RegExp(`^vmlet: ${path.replace(".", "\\.")}: `), stderr);
      }
    }
    await new Promise((resolve) => socket.close(resolve));
  });

  it("the guest's own files are no output, by any name; nor is what somebody else has made", async () => {
    const disk = at("disk.img");
    writeFileSync(disk, Buffer.alloc(1 << 20, 7));
    symlinkSync("disk.img", at("link"));
    const kernel = ends(0);
    writeFileSync(at("mine"), "mine");
    const before = readFileSync(disk);
    const boot = (...options: string[]) =>
      run(bootWords(kernel, "--disk", `path=${disk}`, ...options), { cwd: folder });
    for (const options of [
      ["--metrics", "link"],
      ["--report", disk],
      ["--control", disk],
      ["--vsock", "cid=3,path=./disk.img"],
      ["--report", kernel],
      ["--report", "new", "--metrics", "./new"],
    ]) {
      const { status, stderr } = await boot(...options);
      assert.equal(status, 65, `${options.join(" ")}: ${stderr}`);
      assert.match(stderr, /the same file as/);
      assert.doesNotMatch(stderr, /rm /);
    }
    const { status, stderr } = await boot("--metrics", "mine");
    assert.deepEqual([status, stderr.includes("not an earlier one of vmlet's")], [73, true]);
    assert.deepEqual(readFileSync(disk), before);
    assert.equal(readFileSync(at("mine"), "utf8"), "mine");
    assert.equal(existsSync(at("new")), false);
  });

  it("stats --follow ends when the VM does, however that ends", async () => {
    const file = at("followed");
    for (const [signal, status] of [
      ["SIGTERM", 0],
      ["SIGKILL", 69],
    ] as const) {
      const vm = start(bootWords(busy.path, "--metrics", file));
      await vm.until("up");
      const stats = start([PROGRAM, "stats", "--follow", file]);
      await stats.until("running");
      vm.child.kill(signal);
      const ended = await stats.ended;
      assert.equal(ended.status, status, ended.stderr);
      if (status !== 0) assert.match(ended.stderr, /nobody writes it any more/);
      await vm.ended;
    }
  });

  it("a working folder that has been removed is in nobody's way", async () => {
    const script = 'mkdir gone && cd gone && rmdir ../gone && "$@"';
    const { status, stderr } = await shell(script, bootWords(ends(9), "--quiet"));
    assert.equal(status, 9, stderr);
    const report = await shell(script, bootWords(ends(9), "--quiet", "--report", "x"));
    assert.equal(report.status, 73, report.stderr);
    assert.doesNotMatch(report.stderr, /internal error/);
  });

  it("bench reads results, and nothing that it would wait for", async () => {
    execFileSync("mkfifo", [at("results")]);
    writeFileSync(at("null"), "null");
    for (const path of [at("results"), "/dev/zero", folder, at("null"), at("none")]) {
      for (const option of ["--from", "--compare"]) {
        const { status, stderr } = await run([PROGRAM, "bench", option, path], {}, 10_000);
        assert.equal(status, 64, `${option} ${path}: ${stderr}`);
      }
    }
  });
});
