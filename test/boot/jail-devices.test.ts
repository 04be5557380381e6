// Needs: a /dev/kvm, virtiofsd and the right to start it, passt with a default route. Guests of a monitor in the jail whose devices other
// programs of the host serve, and those that go on from a template.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { MetricsLine } from "../../vmm/cli/metrics.js";
import { countBoot } from "../helpers/booted.js";
import { buildVsockProgram } from "../helpers/guest-programs.js";
import { PROGRAM, start, type Running } from "../helpers/program.js";
import { shareProblem } from "../helpers/share-guard.js";
import { serversOf } from "../helpers/share-servers.js";
import { skip } from "../helpers/skip.js";
import { FETCHED_BYTES, passtsOf, userNetRig } from "../helpers/user-net-rig.js";

/** Emulated, on a machine that may be busy with other tests, `ms`. */
const BOOT_LIMIT_MS = 400_000;
const MTU = "4321";

describe("boot: devices in the jail", function () {
  this.timeout(2 * BOOT_LIMIT_MS);
  const { folder, fetching } = userNetRig();
  let shared = "";

  before(function () {
    const reason = shareProblem();
    if (reason !== undefined) skip(this, reason);
    shared = join(folder(), "shared");
    mkdirSync(shared);
    writeFileSync(join(shared, "in"), "of the host\n");
  });

  function boot(mode: string, options: readonly string[], script: string): Running {
    const words = [PROGRAM, "boot", "--accel", "kvm", "--quiet", "--jail", mode, ...options, "--", "sh", "-c", script];
    return start(words, { env: { ...process.env, VMLET_CACHE: join(folder(), "cache") } }, BOOT_LIMIT_MS);
  }

  async function noHelpers(): Promise<void> {
    const limit = performance.now() + 20_000;
    while (passtsOf(MTU).length + serversOf(shared).length > 0) {
      assert.ok(performance.now() < limit, "programs go on");
      await sleep(20);
    }
  }

  const mounting = "mkdir /m && mount -t virtiofs share0 /m && cat /m/in";
  const devices = (): string[] => ["--share", shared, "--net", `user,mtu=${MTU}`];

  it("a folder, a network in user mode, a balloon, metrics: a guest has them; a server that dies takes its folder; nothing stays", async () => {
    const metrics = join(folder(), "metrics");
    const script = `${mounting} && echo of the guest >/m/out; ${fetching()}
      echo dies; while ls /m >/dev/null 2>&1; do sleep 0.1; done; ls /m 2>&1; exit 7`;
    const run = boot("on", [...devices(), "--balloon", "16", "--metrics", metrics], script);
    await run.until(/dies/);
    assert.equal(readFileSync(join(shared, "out"), "utf8"), "of the guest\n");
    for (const pid of serversOf(shared)) process.kill(pid, "SIGKILL");
    const { status, stdout, stderr } = await run.ended;
    const lines = ["of the host", String(FETCHED_BYTES), "dies", "ls: /m: Transport endpoint is not connected", ""];
    const notice = `vmlet: share0: virtiofsd has ended; the folder ${shared} is gone for the guest\n`;
    assert.deepEqual([stdout.split("\n"), stderr, status], [lines, notice, 7]);
    const last = JSON.parse(readFileSync(metrics, "utf8").trim().split("\n").at(-1) ?? "") as MetricsLine;
    assert.equal(last.state, "ended");
    await noHelpers();
    countBoot();
  });

  it("the same on a PCI bus, with all threads before the guest; nothing stays after kill -9", async () => {
    const run = boot("strict", ["--pci", ...devices()], `${mounting}; ${fetching()}; echo ready; sleep 100`);
    await run.until(/ready/);
    assert.equal(passtsOf(MTU).length, 1);
    assert.ok(serversOf(shared).length > 0);
    run.child.kill("SIGKILL");
    const { stdout, stderr } = await run.ended;
    assert.deepEqual([stdout, stderr], [`of the host\n${String(FETCHED_BYTES)}\nready\n`, ""]);
    await noHelpers();
    countBoot();
  });

  it("disks, one of them in memory: written, flushed, read back, trimmed", async () => {
    const inMemory = mkdtempSync("/dev/shm/vmlet-");
    const images = [join(folder(), "disk"), join(inMemory, "disk")];
    const script = `mkdir /m; for d in vda vdb; do mount /dev/$d /m && head -c 1048576 /dev/urandom >/m/a && sync || exit 1
      sum=$(md5sum </m/a); umount /m; mount /dev/$d /m; [ "$sum" = "$(md5sum </m/a)" ] && rm /m/a && fstrim /m && umount /m && echo same; done`;
    try {
      for (const mode of ["on", "strict"]) {
        for (const image of images) {
          const made = spawnSync("mke2fs", ["-q", "-F", "-t", "ext4", image, "16M"], { encoding: "utf8" });
          assert.equal(made.status, 0, made.stderr);
        }
        const { stdout, stderr, status } = await boot(
          mode,
          images.flatMap((image) => ["--disk", `path=${image}`]),
          script,
        ).ended;
        assert.deepEqual([stdout, stderr, status], ["same\nsame\n", "", 0], mode);
      }
    } finally {
      rmSync(inMemory, { recursive: true });
    }
    countBoot();
  });

  it("sockets by a path: the guest reaches what listens outside, and nothing where nobody does; a host program the guest", async () => {
    copyFileSync(buildVsockProgram(folder()), join(shared, "vsock"));
    const socket = join(folder(), "vsock");
    const script = `mkdir /m && mount -t virtiofs share0 /m && v=/m/vsock; head -c 1048576 /dev/urandom >/tmp/a; md5sum </tmp/a | cut -c1-32
      $v connect 1234 </tmp/a; for i in 1 2 3; do echo $i | $v connect 1234; done; $v connect 1235 </dev/null 2>&1; $v echo 5000`;
    for (const mode of ["on", "strict"]) {
      const peer = start(["node", "test/programs/vsock-peer.mjs", socket], {}, BOOT_LIMIT_MS);
      const run = boot(mode, ["--share", shared, "--vsock", `cid=7,path=${socket}`], script);
      const { stdout, stderr, status } = await run.ended;
      const [sent, answered, ...rest] = stdout.trim().split("\n");
      assert.equal(answered, sent, stdout);
      const sums = ["1", "2", "3"].map((line) => createHash("md5").update(`${line}\n`).digest("hex"));
      assert.deepEqual(rest, [...sums, "connect: Connection reset by peer", "1048576 bytes"], stdout);
      assert.deepEqual([stderr, status, existsSync(socket)], ["", 0, false]);
      assert.equal((await peer.ended).stdout, "OK PORT, the same bytes came back\n");
      rmSync(`${socket}_1234`, { force: true });
      await noHelpers();
    }
    countBoot();
  });

  it("a guest goes on from a template, which is made before the seal; it leaves nothing for the next one of its command", async () => {
    const names: string[][] = [];
    for (const mode of ["on", "on", "strict"]) {
      const run = boot(mode, ["--from-template", ...devices()], `${mounting}; ${fetching()}; exit 7`);
      const { status, stdout, stderr } = await run.ended;
      assert.deepEqual([status, stdout, stderr], [7, `of the host\n${String(FETCHED_BYTES)}\n`, ""]);
      names.push(readdirSync(join(folder(), "cache", "templates")));
      await noHelpers();
    }
    const [first = []] = names;
    assert.ok(first.length > 0 && !first.some((name) => name.endsWith(".programs")), first.join());
    assert.deepEqual(names, [first, first, first]);
    countBoot();
  });
});
