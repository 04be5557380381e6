// Needs: root (to become nobody), a /dev/kvm of any kind, the built guest. Nobody has no rights and
// no home: a guest with every device that needs no root, and the one line about the one that does.
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import type { Report } from "../../vmm/cli/report.js";
import { findProgram } from "../../vmm/host/programs.js";
import { VIRTIOFSD } from "../../vmm/virtio/backends/virtiofsd-command.js";
import { countBoot } from "../helpers/booted.js";
import { whyNoKvm } from "../helpers/kvm-guard.js";
import { withPrivateDev } from "../helpers/private-dev.js";
import { skip } from "../helpers/skip.js";

const NOBODY = 65_534;
const TAP = "vmlettest9";

interface Ended {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** `vmlet WORDS` as nobody, in an environment that holds a PATH and no more. */
function asNobody(folder: string, words: string): Promise<Ended> {
  const user = `setpriv --reuid=${String(NOBODY)} --regid=${String(NOBODY)} --clear-groups --inh-caps=-all`;
  const script = `env -i -C ${folder} PATH=/usr/sbin:/usr/bin:/sbin:/bin ${user} ${process.execPath} ${resolve("dist/vmlet.js")} ${words}`;
  const [file = "", ...argv] = withPrivateDev("mknod -m 666 kvm c 10 232", script);
  return new Promise((done, reject) => {
    const child = spawn(file, argv, { stdio: ["ignore", "pipe", "pipe"] });
    let stdout = "";
    let stderr = "";
    child.stdout.setEncoding("latin1").on("data", (text: string) => (stdout += text));
    child.stderr.setEncoding("latin1").on("data", (text: string) => (stderr += text));
    child.once("error", reject);
    child.once("close", (status) => {
      done({ status, stdout, stderr });
    });
  });
}

describe("boot: an ordinary user", function () {
  this.timeout(200_000);
  let folder = "";

  before(function () {
    const reason = process.geteuid?.() === 0 ? whyNoKvm() : "becoming another user needs root";
    if (reason !== undefined) skip(this, reason);
    folder = mkdtempSync(join(tmpdir(), "vmlet-test-"));
    chmodSync(folder, 0o777);
  });
  after(() => {
    if (folder !== "") rmSync(folder, { recursive: true });
    rmSync(`/var/tmp/vmlet-${String(NOBODY)}`, { recursive: true, force: true });
  });

  it("boots with disk, network on a TAP of its own, vsock, virtio console, entropy, balloon and a shared folder", async () => {
    const disk = join(folder, "disk.img");
    writeFileSync(disk, "");
    truncateSync(disk, 2 ** 20);
    chmodSync(disk, 0o666);
    const hasTap =
      findProgram("ip") !== undefined &&
      spawnSync("ip", ["tuntap", "add", "dev", TAP, "mode", "tap", "user", String(NOBODY)]).status === 0;
    if (hasTap) spawnSync("ip", ["link", "set", TAP, "up"]);
    else console.log("      without a network: root cannot make a TAP interface here");
    const shared = join(folder, "shared");
    mkdirSync(shared);
    chownSync(shared, NOBODY, NOBODY);
    writeFileSync(join(shared, "roots"), "");
    const canShare = existsSync(VIRTIOFSD) && findProgram("unshare") !== undefined;
    if (!canShare) console.log("      without a shared folder: there is no virtiofsd here");
    try {
      const devices = `--disk path=disk.img ${hasTap ? `--net tap=${TAP}` : ""} --vsock cid=3,path=${folder}/socket --console virtio --rng --balloon 8 ${canShare ? `--share ${shared}` : ""}`;
      const command =
        "sh -c 'ls /dev/vda /dev/hwrng /dev/vsock; ls /sys/class/net; echo written >/dev/vda; mkdir -p /mnt; mount -t virtiofs share0 /mnt && cd /mnt && (echo guest >own; echo x >roots; stat -c %u own roots)'";
      const words = `boot --quiet --accel kvm ${devices} --metrics ${folder}/metrics --report ${folder}/report -- ${command}`;
      const { status, stdout, stderr } = await asNobody(folder, words);
      assert.equal(status, 0, stderr);
      for (const name of ["/dev/vda", "/dev/hwrng", "/dev/vsock"]) assert.ok(stdout.includes(name), stdout);
      assert.equal(stdout.includes("eth0"), hasTap);
      assert.equal(readFileSync(disk, "latin1").slice(0, 8), "written\n");
      if (canShare) {
        assert.equal(statSync(join(shared, "own")).uid, NOBODY);
        assert.deepEqual([statSync(join(shared, "roots")).size, statSync(join(shared, "roots")).uid], [0, 0]);
        assert.match(stdout, /0\r?\n65534\r?\n$/);
      }
      const report = JSON.parse(readFileSync(join(folder, "report"), "utf8")) as Report;
      assert.equal(report.outcome, "poweroff");
      assert.ok(readFileSync(join(folder, "metrics"), "utf8").includes('"state":"running"'));
      countBoot();
    } finally {
      if (hasTap) spawnSync("ip", ["link", "del", TAP]);
    }
    assert.ok(existsSync(`/var/tmp/vmlet-${String(NOBODY)}/kvm-probe.json`), "the probe's answer is kept");
  });

  it("an interface that only root can make: said at once, with what to do", async () => {
    const { status, stdout, stderr } = await asNobody(folder, "boot --accel kvm --net tap=auto");
    assert.deepEqual([status, stdout], [69, ""]);
    const lines = stderr.trim().split("\n");
    assert.equal(lines.length, 2, stderr);
    assert.match(lines[0] ?? "", /needs root or CAP_NET_ADMIN/);
    assert.match(lines[1] ?? "", /what helps: .*ip tuntap add/);
  });
});
