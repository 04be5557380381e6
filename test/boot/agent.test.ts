// Needs: a /dev/kvm of any kind that boots a guest. The agent as PID 1, in a container's image as the root.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { chmodSync, copyFileSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Agent } from "../../vmm/agent/agent.js";
import { consoleParameter, OWN_KERNEL_CMDLINE } from "../../vmm/config/defaults.js";
import { defaultInitrd, fastKernel } from "../../vmm/host/guest-files.js";
import { timeLimit } from "../../vmm/host/time-limit.js";
import { prepareImage, type PreparedImage } from "../../vmm/image/index.js";
import { createVm, type Vm, type VmConfig, type VmExit } from "../../vmm/index.js";
import { countBoot } from "../helpers/booted.js";
import { whyNoKvm } from "../helpers/kvm-guard.js";
import { skip } from "../helpers/skip.js";
import { VmAgent } from "../helpers/vm-agent.js";

const BOOT_LIMIT_MS = 200_000;

describe("boot: the agent in an image", function () {
  this.timeout(2 * BOOT_LIMIT_MS);
  let folder = "";
  let image: PreparedImage | undefined;
  let vm: Vm | undefined;
  let ends: Promise<VmExit> | undefined;
  let agent: Agent;

  before(async function () {
    const reason = whyNoKvm();
    if (reason !== undefined) skip(this, reason);
    folder = mkdtempSync(join(tmpdir(), "vmlet-test-"));
    const root = join(folder, "root");
    for (const name of ["bin", "etc", "tmp", "run", "home/someone"]) mkdirSync(join(root, name), { recursive: true });
    copyFileSync(execFileSync("sh", ["-c", "command -v busybox"]).toString().trim(), join(root, "bin/busybox"));
    chmodSync(join(root, "bin/busybox"), 0o755);
    for (const name of ["sh", "cat", "mount", "stty"]) symlinkSync("busybox", join(root, "bin", name));
    writeFileSync(join(root, "etc/passwd"), "someone:x:1000:1000::/home/someone:/bin/sh\n");
    writeFileSync(join(root, "etc/hosts"), "left by a builder\n");
    symlinkSync("/run/nowhere/resolv.conf", join(root, "etc/resolv.conf"));
    writeFileSync(join(root, "tmp/mine"), "of the image\n");
    writeFileSync(join(root, "run/mine"), "of the image\n");
    const archive = join(folder, "root.tar");
    execFileSync("tar", ["-C", root, "--owner=0", "--group=0", "-cf", archive, "."]);
    image = await prepareImage(`tar:${archive}`, { cache: join(folder, "cache") });
    const config: VmConfig = {
      kernel: fastKernel(),
      initrd: defaultInitrd(),
      cmdline: `${consoleParameter("serial")} ${OWN_KERNEL_CMDLINE} vmlet.image=/dev/vda vmlet.agent`,
      bareCmdline: true,
      quiet: true,
      memoryMib: 128,
      disks: [{ path: image.manifestPath, format: "parts", isReadonly: true }],
      commandChannel: true,
    };
    const bridge = new VmAgent();
    vm = createVm(config, bridge.host);
    const connection = bridge.connect(vm, { helloLimitMs: timeLimit("a boot", BOOT_LIMIT_MS) });
    agent = new Agent(connection);
    ends = vm.start();
    void ends.finally(() => {
      bridge.ended();
    });
    countBoot();
    await Promise.race([connection.ready, ends.then(({ outcome }) => assert.fail(`the guest has ended: ${outcome}`))]);
  });
  after(async () => {
    await vm?.close();
    image?.release();
    if (folder !== "") rmSync(folder, { recursive: true });
  });

  it("finds what a container has: names, devices, its own /tmp and /run, and a root that can be written", async () => {
    const script = `cat /etc/hosts /etc/resolv.conf /etc/hostname /tmp/mine /run/mine
      echo changed >/etc/passwd.new && cat /etc/passwd.new
      mount | cut -d" " -f1,3,5 | sort
      ls -d /dev/null /dev/fd /dev/shm /proc/1 /sys/kernel
      echo $HOME $PATH; pwd`;
    const { stdout, stderr, exitCode } = await agent.run(["sh", "-c", script]);
    assert.deepEqual([stderr, exitCode], ["", 0]);
    assert.match(
      stdout,
      /^127\.0\.0\.1\tlocalhost\n::1\tlocalhost [^\n]*\n127\.0\.1\.1\tvmlet\nvmlet\nof the image\nof the image\nchanged\n/,
    );
    for (const place of ["overlay / overlay", "devtmpfs /dev devtmpfs", "proc /proc proc", "mqueue /dev/mqueue mqueue"])
      assert.ok(stdout.includes(`\n${place}\n`), `${place} is missing: ${stdout}`);
    assert.ok(!/ \/(tmp|run) /.test(stdout));
    assert.ok(
      stdout.endsWith("/sys/kernel\n/root /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n/\n"),
      stdout,
    );
  });

  it("many commands at once get their own bytes; users are the image's", async () => {
    const inputs = Array.from({ length: 3 }, () => randomBytes(100_000));
    const results = await Promise.all(inputs.map((input) => agent.run(["cat"], { stdin: input })));
    results.forEach((result, i) => {
      assert.ok(inputs[i]?.equals(result.stdoutBytes), `command ${String(i)}: other bytes`);
    });
    const user = await agent.run(["sh", "-c", "id -u; id -g; pwd; kill -9 $$"], { user: "someone" });
    assert.deepEqual([user.stdout, user.signal], ["1000\n1000\n/home/someone\n", "SIGKILL"]);
  });

  it("ends with the status that it is told", async () => {
    await agent.guest.setIdentity({ hostname: "another" });
    assert.ok((await agent.run(["cat", "/etc/hostname", "/proc/sys/kernel/hostname"])).stdout === "another\nanother\n");
    await agent.guest.powerOff(7);
    const exit = await ends;
    assert.deepEqual([exit?.outcome, exit?.exitStatus], ["poweroff", 7]);
  });
});
