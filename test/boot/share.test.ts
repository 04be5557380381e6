// Needs: a /dev/kvm, virtiofsd and the right to start it, gcc. Folders of this host in a guest.
import assert from "node:assert/strict";
import { spawn, spawnSync, type ChildProcess } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { countBoot } from "../helpers/booted.js";
import { withShareProgram } from "../helpers/guest-programs.js";
import { whyNoKvm } from "../helpers/kvm-guard.js";
import { shareProblem } from "../helpers/share-guard.js";
import { serversOf } from "../helpers/share-servers.js";
import { PROGRAM } from "../helpers/program.js";
import { skip } from "../helpers/skip.js";

/** Emulated, on a machine that may be busy with other tests, `ms`. */
const BOOT_LIMIT_MS = 400_000;
const PARTS = ["mappings", "locks", "names", "changes", "deep", "errors"];
const SIZES = [0, 1, 4095, 4096, 4097, 2 ** 17 + 3, 2 ** 20 + 5];

describe("boot: shared folders", function () {
  this.timeout(BOOT_LIMIT_MS + 10_000);
  let top = "";
  let initrd: string;
  let hasFull = false;
  /** What vmlet leaves there nobody removes. */
  let temporary: string;

  before(function () {
    const reason = whyNoKvm() ?? shareProblem();
    if (reason !== undefined) skip(this, reason);
    top = mkdtempSync(join(tmpdir(), "vmlet-test-"));
    initrd = withShareProgram(top);
    temporary = join(top, "tmp");
    mkdirSync(temporary);
    for (const name of ["rw/sub", "rw/full", "ro/sub"]) mkdirSync(join(top, name), { recursive: true });
    hasFull = spawnSync("mount", ["-t", "tmpfs", "-o", "size=1m", "tmpfs", join(top, "rw/full")]).status === 0;
    if (hasFull) spawnSync("mount", ["-t", "tmpfs", "tmpfs", join(top, "ro/sub")]);
  });
  after(() => {
    if (top === "") return;
    if (hasFull) spawnSync("umount", [join(top, "rw/full"), join(top, "ro/sub")]);
    rmSync(top, { recursive: true });
  });

  interface Run {
    readonly child: ChildProcess;
    until(text: RegExp): Promise<void>;
    readonly ended: Promise<{ status: number | null; stdout: string; stderr: string }>;
  }

  function boot(shares: readonly string[], script: string, more: readonly string[] = []): Run {
    const options = [...more, ...shares.flatMap((share) => ["--share", share])];
    const argv = ["boot", "--quiet", "--initrd", initrd, ...options, "--", "sh", "-c", script];
    const child = spawn(PROGRAM, argv, {
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...process.env, TMPDIR: temporary },
      timeout: BOOT_LIMIT_MS,
    });
    let stdout = "";
    let stderr = "";
    child.stdout.setEncoding("utf8").on("data", (text: string) => (stdout += text));
    child.stderr.setEncoding("utf8").on("data", (text: string) => (stderr += text));
    const ended = once(child, "close").then(([status]) => ({ status: status as number | null, stdout, stderr }));
    const until = async (text: RegExp): Promise<void> => {
      while (!text.test(stdout)) {
        assert.equal(child.exitCode, null, stdout + stderr);
        await sleep(50);
      }
    };
    return { child, until, ended };
  }

  const hash = (path: string): string => createHash("sha256").update(readFileSync(path)).digest("hex");

  it("files go both ways byte for byte, programs find a file system, read-only is read-only, nothing outside is reached; a server that dies takes only its folder", async () => {
    const rw = join(top, "rw");
    const ro = join(top, "ro");
    mkdirSync(join(rw, "in"));
    for (const size of SIZES) writeFileSync(join(rw, `in/${String(size)}`), randomBytes(size));
    writeFileSync(join(top, "secret"), "secret of the host");
    writeFileSync(join(ro, "file"), "of the host");
    writeFileSync(join(ro, "sub/file"), "mounted below");
    for (const folder of [rw, ro]) symlinkSync(join(top, "secret"), join(folder, "outside"));
    symlinkSync("/etc", join(ro, "etc"));
    const script = `mkdir -p /rw /ro /mnt && mount -t virtiofs share0 /rw && mount -t virtiofs 'a name, two' /ro || exit 9
      cp -r /rw/in /rw/out && (cd /rw/in && sha256sum *) >/tmp/in && (cd /rw/out && sha256sum -c -s /tmp/in) && echo copied
      mkdir /rw/work; share /rw/work ${hasFull ? "/rw/full" : ""}
      cat /rw/outside /ro/outside /rw/../secret 2>&1; ls /ro/etc | grep -c shadow; cat /ro/file /ro/sub/file; echo
      mount -o remount,rw /ro; for f in new file sub/new sub/file; do (echo x >/ro/$f) 2>&1; done
      rm -rf /ro/* 2>&1 | sort -u | head -1; chmod 777 /ro/file 2>&1; cat /ro/file; echo
      mknod /tmp/a c 1 1; ls /rw/work | wc -l; echo written here >/rw/sub/guest; echo begins; until read line </rw/sub/host; do sleep 0.1; done; echo "$line"
      echo dies; while cat /rw/sub/host >/dev/null 2>&1; do sleep 0.1; done; cat /rw/sub/host 2>&1; cat /ro/file; echo; exit 7`;
    writeFileSync(join(rw, "sub/host"), "");
    const run = boot([rw, `${ro},tag=a name,, two,ro`], script);
    await run.until(/begins/);
    writeFileSync(join(rw, "sub/host"), "from the host\n");
    assert.equal(readFileSync(join(rw, "sub/guest"), "utf8"), "written here\n");
    await run.until(/dies/);
    const victims = serversOf(rw);
    assert.ok(victims.length > 0);
    for (const pid of victims) process.kill(pid, "SIGKILL");
    const { status, stdout, stderr } = await run.ended;
    const refused = ["new", "file", "sub/new", "sub/file"].map(
      (name) => `sh: can't create /ro/${name}: Read-only file system`,
    );
    const absent = ["/rw/outside", "/ro/outside", "/rw/../secret"].map(
      (path) => `cat: can't open '${path}': No such file or directory`,
    );
    const gone = "Transport endpoint is not connected";
    const lines = [
      ...["copied", ...PARTS.map((part) => `ok ${part}`), ...absent, "0", "of the hostmounted below", ...refused],
      ...["rm: can't remove '/ro/etc': Read-only file system", "chmod: /ro/file: Read-only file system"],
      ...["of the host", "8", "begins", "from the host", "dies", `cat: can't open '/rw/sub/host': ${gone}`],
      ...["of the host", ""],
    ];
    const notice = `vmlet: share0: virtiofsd has ended; the folder ${rw} is gone for the guest\n`;
    assert.deepEqual([stdout.split("\n"), stderr, status], [lines, notice, 7]);
    assert.deepEqual([readdirSync(temporary), serversOf(top)], [[], []]);
    for (const size of SIZES) {
      const name = String(size);
      assert.equal(hash(join(rw, "out", name)), hash(join(rw, "in", name)), name);
    }
    countBoot();
  });

  it("on a PCI bus, without a --kernel: the same, and each queue has its interrupt", async () => {
    const rw = join(top, "pci");
    mkdirSync(join(rw, "in"), { recursive: true });
    for (const size of SIZES) writeFileSync(join(rw, `in/${String(size)}`), randomBytes(size));
    const script = `mkdir -p /rw && mount -t virtiofs share0 /rw || exit 9
      cp -r /rw/in /rw/out && (cd /rw/in && sha256sum *) >/tmp/in && (cd /rw/out && sha256sum -c -s /tmp/in) && echo copied
      sed -n 's/^ *[0-9]*: *[1-9][0-9]* *PCI-MSI .*virtio0-requests/requests/p' /proc/interrupts
      echo dies; while ls /rw/in >/dev/null 2>&1; do sleep 0.1; done; ls /rw 2>&1; exit 7`;
    const run = boot([rw], script, ["--pci"]);
    await run.until(/dies/);
    for (const pid of serversOf(rw)) process.kill(pid, "SIGKILL");
    const { status, stdout, stderr } = await run.ended;
    const lines = ["copied", "requests.0", "dies", "ls: /rw: Transport endpoint is not connected", ""];
    assert.deepEqual([stdout.split("\n"), status], [lines, 7], stderr);
    assert.match(stderr, /^vmlet: share0: virtiofsd has ended; the folder .* is gone for the guest\n$/);
    for (const size of SIZES) {
      const name = String(size);
      assert.equal(hash(join(rw, "out", name)), hash(join(rw, "in", name)), name);
    }
    countBoot();
  });

  it("leaves no process and no file behind after kill -9", async () => {
    const rw = join(top, "rw");
    const run = boot(
      [rw, `${join(top, "ro")},ro`],
      "mkdir -p /mnt && mount -t virtiofs share1 /mnt && cat /mnt/file && echo ready; sleep 100",
    );
    await run.until(/of the hostready/);
    assert.ok(serversOf(rw).length > 0);
    run.child.kill("SIGKILL");
    await run.ended;
    const end = performance.now() + 20_000;
    while (serversOf(top).length > 0) {
      assert.ok(performance.now() < end, "servers go on");
      await sleep(20);
    }
    assert.deepEqual(readdirSync(temporary), []);
    countBoot();
  });
});
