// Needs: root, a built program, the lab, busybox, script(1). Programs in VMs on a host without a /dev/kvm that can be used.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { Vm } from "../../vmm/index.js";
import { labBase } from "../../vmm/lab/image.js";
import { missingLabPrograms } from "../../vmm/lab/programs.js";
import { countBoot } from "../helpers/booted.js";
import { makeBusyboxImage, whyNoBusybox } from "../helpers/busybox-image.js";
import { withPrivateDev } from "../helpers/private-dev.js";
import { PROGRAM } from "../helpers/program.js";
import { PseudoTerminal, whyNoTerminal } from "../helpers/pseudo-terminal.js";
import { skip } from "../helpers/skip.js";

/** Of a lab and a boot in it, on a host that is busy with other tests. */
const LIMIT_MS = 400_000;
const HINT = /^vmlet: .*: booting in the lab, an emulated host \(slower\)/;

describe("boot: programs in VMs without a /dev/kvm", function () {
  this.timeout(LIMIT_MS);
  let folder = "";
  let image = "";
  const environment = { ...process.env };

  before(async function () {
    const missing = missingLabPrograms();
    const reason =
      (process.getuid?.() === 0 ? undefined : "not root: /dev cannot be another one") ??
      (missing.length === 0 ? undefined : `the lab lacks ${missing.join(", ")}`) ??
      (existsSync(PROGRAM) ? undefined : "dist/vmlet.js is not built") ??
      whyNoBusybox() ??
      whyNoTerminal();
    if (reason !== undefined) skip(this, reason);
    folder = mkdtempSync(join(tmpdir(), "vmlet-run-lab-"));
    process.env["VMLET_STATE"] = join(folder, "state");
    image = makeBusyboxImage(folder);
    // What is said of its making is no part of these tests.
    await labBase(resolve("."));
    mkdirSync(join(folder, "shared"));
    writeFileSync(join(folder, "shared/file"), "from the host\n");
  });

  after(() => {
    process.env = environment;
    if (folder !== "") rmSync(folder, { recursive: true, force: true });
  });

  const text = (bytes: Buffer): string => bytes.toString("utf8");
  /** Where there is no /dev/kvm. */
  const vmlet = (words: readonly string[], input: string | Buffer = "") => {
    const quoted = [PROGRAM, ...words].map((word) => `'${word.replaceAll("'", "'\\''")}'`).join(" ");
    const [file = "", ...argv] = withPrivateDev("", quoted);
    const { status, stdout, stderr } = spawnSync(file, argv, { input, timeout: LIMIT_MS, maxBuffer: 64 * 2 ** 20 });
    return { status, stdout, stderr: text(stderr) };
  };
  const left = (): string[] =>
    existsSync(join(folder, "state")) ? readdirSync(join(folder, "state")).filter((name) => name !== "names") : [];

  it("a program's input, output, errors and exit code are its own; variables, folder, user and tmpfs are as asked for", () => {
    const input = randomBytes(1_500_000);
    const script =
      'echo "$A $PWD $(id -u) $(hostname) $(grep -c " /scratch tmpfs" /proc/mounts)" >&2; cat /mnt/dir/file >&2; touch /mnt/dir/new 2>/dev/null || echo read-only >&2; cat; exit 7';
    const asked = [
      "-e",
      "A=two words",
      "-w",
      "/some/where",
      "-u",
      "1234",
      "-h",
      "guest",
      "--tmpfs",
      "/scratch",
      "-v",
      `${join(folder, "shared")}:/mnt/dir:ro`,
    ];
    const { status, stdout, stderr } = vmlet(["run", "-q", "-i", ...asked, image, "sh", "-c", script], input);
    countBoot();
    assert.match(stderr, HINT);
    assert.deepEqual(stderr.trimEnd().split("\n").slice(1), [
      "vmlet: the lab has copies of the volumes, as they are now",
      "two words /some/where 1234 guest 1",
      "from the host",
      "read-only",
    ]);
    assert.equal(status, 7);
    const hash = (bytes: Buffer): string => createHash("sha256").update(bytes).digest("hex");
    assert.deepEqual([stdout.length, hash(stdout)], [input.length, hash(input)]);
    assert.deepEqual(left(), []);
  });

  it("what cannot be had there is refused in one line, before anything is made", () => {
    const refused: readonly (readonly [string[], string])[] = [
      [["-p", "8080:80"], "--publish (ports)"],
      [["--network", "user"], "--network user (network)"],
      [["-v", `${join(folder, "shared")}:/mnt`], "--volume (volumes) without :ro"],
      [
        ["-d", "--network", "tap=tap0", "-v", `${join(folder, "shared")}:/mnt`],
        "--network tap (network) and --volume (volumes) without :ro",
      ],
    ];
    for (const [words, what] of refused) {
      const { status, stdout, stderr } = vmlet(["run", ...words, "docker://127.0.0.1:1/never", "true"]);
      const start = `vmlet: ${what} cannot reach this host from the lab: leave it out, or use a host with a /dev/kvm (`;
      assert.deepEqual([status, text(stdout), stderr.slice(0, start.length)], [125, "", start], stderr);
      assert.equal(stderr.trimEnd().split("\n").length, 1, stderr);
    }
    const { status, stderr } = vmlet(["run", "--accel", "kvm", image, "true"]);
    assert.equal(status, 125);
    assert.match(stderr, /^vmlet: .*\/dev\/kvm/);
    assert.doesNotMatch(stderr, /lab/);
    assert.deepEqual(left(), []);
  });

  it("a KVM that answers no ioctl is none, and lab-intel is no place for it", () => {
    const forbid = join(folder, "forbid-kvm");
    assert.equal(spawnSync("gcc", ["-o", forbid, "test/programs/forbid-kvm.c"], { timeout: LIMIT_MS }).status, 0);
    const words = ["1", PROGRAM, "run", "-p", "8080:80", "docker://127.0.0.1:1/never"];
    const { status, stderr } = spawnSync(forbid, words, { timeout: LIMIT_MS, encoding: "utf8" });
    assert.equal(status, 125);
    assert.match(stderr, /^vmlet: --publish \(ports\) cannot reach this host from the lab/);
    const { status: second, stderr: why } = vmlet(["run", "--accel", "lab-intel", image, "true"]);
    assert.deepEqual([second, why], [125, 'vmlet: --accel "lab-intel" is not one of auto, kvm, lab\n']);
  });

  it("a VM of a program's: commands side by side, files both ways, a terminal, exec from outside; nothing is left of it", async () => {
    const vm = await Vm.start({ image, accel: "lab", name: "emulated", env: { A: "of the VM" } });
    countBoot();
    let pid = 0;
    try {
      const record = JSON.parse(readFileSync(join(folder, "state", vm.id, "vm.json"), "utf8")) as {
        readonly owner: { readonly pid: number };
        readonly isInLab: boolean;
      };
      pid = record.owner.pid;
      assert.equal(record.isInLab, true);
      const results = await Promise.all(
        [1, 2, 3].map((n) => vm.exec(["sh", "-c", `sleep 1; echo ${String(n)} $A; exit ${String(n)}`])),
      );
      assert.deepEqual(
        results.map(({ stdout, exitCode }) => [stdout, exitCode]),
        [1, 2, 3].map((n) => [`${String(n)} of the VM\n`, n]),
      );
      const bytes = randomBytes(300_000);
      await vm.files.write("/tmp/bytes", bytes);
      assert.deepEqual(await vm.files.read("/tmp/bytes"), bytes);
      const killed = await vm.exec(["sleep", "1000"], { timeoutMs: 1000 }).then(
        () => "ended",
        (error: unknown) => (error as Error).name,
      );
      assert.equal(killed, "ExecError");

      const terminal = await PseudoTerminal.open(33, 101);
      try {
        terminal.run([
          PROGRAM,
          "exec",
          "-it",
          "emulated",
          "sh",
          "-c",
          'stty size; read -r line; echo "got $line"; exit 5',
        ]);
        await terminal.until(/33 101/);
        terminal.type("words\r");
        await terminal.until(/got words/);
        await terminal.until(/ended 5/);
      } finally {
        terminal.close();
      }
      const outside = spawnSync(PROGRAM, ["exec", "-i", "emulated", "wc", "-c"], { input: bytes, timeout: LIMIT_MS });
      assert.deepEqual([outside.status, text(outside.stdout)], [0, "300000\n"]);

      for (const call of [() => vm.pause(), () => vm.snapshot(join(folder, "never")), () => vm.clone()]) {
        await assert.rejects(call(), { code: "ERR_CONFIG", message: /A VM in the lab cannot be (paused|saved)/ });
      }
      assert.equal(existsSync(join(folder, "never")), false);
    } finally {
      await vm.close();
    }
    assert.equal((await vm.ended).exitCode, 137);
    assert.deepEqual([existsSync(`/proc/${String(pid)}`), left()], [false, []]);
  });

  it("a disk of one's own is written, and clean after the program's end", () => {
    const disk = join(folder, "root.ext4");
    const made = spawnSync("mke2fs", ["-q", "-t", "ext4", "-d", join(folder, "root"), disk, "32M"], {
      env: { ...process.env, PATH: `${process.env["PATH"] ?? ""}:/sbin:/usr/sbin` },
      timeout: LIMIT_MS,
    });
    assert.equal(made.status, 0, String(made.stderr));
    const { status, stderr } = vmlet(["run", "-q", "--disk", disk, "sh", "-c", "echo kept >/root-file"]);
    countBoot();
    assert.equal(status, 0, stderr);
    const debugfs = (request: string): string =>
      spawnSync("/sbin/debugfs", ["-R", request, disk], { encoding: "utf8", timeout: LIMIT_MS }).stdout;
    assert.equal(debugfs("cat /root-file"), "kept\n");
    assert.doesNotMatch(debugfs("stats"), /needs_recovery/);
  });
});
