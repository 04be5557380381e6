// Needs: a /dev/kvm of any kind that boots a guest. The agent as PID 1, in a container's image as the root: one guest boots, up to
// where it is a template; all others go on from there.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { chmodSync, copyFileSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import type { Agent } from "../../vmm/agent/agent.js";
import { GuestCommand, type CommandEvents, type ExitStatus } from "../../vmm/agent/command.js";
import type { ConnectionOptions } from "../../vmm/agent/connection.js";
import { consoleParameter, OWN_KERNEL_CMDLINE } from "../../vmm/config/defaults.js";
import { resolveConfig } from "../../vmm/config/resolve.js";
import { defaultInitrd, fastKernel } from "../../vmm/host/guest-files.js";
import { timeLimit } from "../../vmm/host/time-limit.js";
import { prepareImage, type PreparedImage } from "../../vmm/image/index.js";
import type { Vm } from "../../vmm/machine/vm.js";
import type { VmExit } from "../../vmm/machine/vm-exit.js";
import { AgentLink } from "../../vmm/sdk/agent-link.js";
import { createSnapshot } from "../../vmm/snapshot/create.js";
import { becomeAnother } from "../../vmm/snapshot/identity.js";
import { OpenSnapshot } from "../../vmm/snapshot/restore.js";
import { openTemplate } from "../../vmm/snapshot/template.js";
import { deviceSupport } from "../../vmm/virtio/device-support.js";
import { allOpeners } from "../../vmm/virtio/attach/all.js";
import { countBoot } from "../helpers/booted.js";
import { whyNoKvm } from "../helpers/kvm-guard.js";
import { skip } from "../helpers/skip.js";

const BOOT_LIMIT_MS = 200_000;
/** Of a template's agent. */
const NONCE = 1;
const OPTIONS = { deviceSupport: deviceSupport(allOpeners) };
const HELD_STREAM = 1;

interface Guest {
  readonly vm: Vm;
  readonly agent: Agent;
  readonly ends: Promise<VmExit>;
  /** Resolves where the guest wants a snapshot to be taken. */
  readonly point: Promise<void>;
}

describe("boot: the agent in an image", function () {
  this.timeout(2 * BOOT_LIMIT_MS);
  let folder = "";
  let image: PreparedImage | undefined;
  let template: OpenSnapshot | undefined;
  let guest: Guest;
  const vms: Vm[] = [];
  const cache = process.env["VMLET_CACHE"];

  function begin(snapshot: OpenSnapshot, options: ConnectionOptions): Guest {
    let reached = (): void => undefined;
    const point = new Promise<void>((resolve) => (reached = resolve));
    const link = new AgentLink({ way: "channel", host: { snapshotPoint: reached } });
    const vm = snapshot.restore(link.host, OPTIONS);
    vms.push(vm);
    becomeAnother(vm);
    const agent = link.connect(vm, { helloLimitMs: timeLimit("a guest's agent", BOOT_LIMIT_MS), ...options });
    return { vm, agent, ends: link.start(vm), point };
  }

  async function stop({ vm, ends }: Guest): Promise<void> {
    vm.stop();
    await ends;
    await vm.close();
  }

  before(async function () {
    const reason = whyNoKvm();
    if (reason !== undefined) skip(this, reason);
    folder = mkdtempSync(join(tmpdir(), "vmlet-test-"));
    process.env["VMLET_CACHE"] = join(folder, "cache");
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
    image = await prepareImage(`tar:${archive}`, { cache: join(folder, "images") });
    const config = resolveConfig({
      kernel: fastKernel(),
      initrd: defaultInitrd(),
      cmdline: `${consoleParameter("serial")} ${OWN_KERNEL_CMDLINE} vmlet.image=/dev/vda vmlet.agent vmlet.template`,
      bareCmdline: true,
      quiet: true,
      memoryMib: 128,
      disks: [{ path: image.manifestPath, format: "parts", isReadonly: true }],
      commandChannel: true,
    });
    template = await openTemplate(config, OPTIONS);
    countBoot();
    guest = begin(template, { nonce: NONCE });
  });
  after(async () => {
    for (const vm of vms) await vm.close();
    template?.close();
    image?.release();
    if (cache === undefined) delete process.env["VMLET_CACHE"];
    else process.env["VMLET_CACHE"] = cache;
    if (folder !== "") rmSync(folder, { recursive: true });
  });

  it("finds what a container has: names, devices, its own /tmp and /run, and a root that can be written", async () => {
    const script = `cat /etc/hosts /etc/resolv.conf /etc/hostname /tmp/mine /run/mine
      echo changed >/etc/passwd.new && cat /etc/passwd.new
      mount | cut -d" " -f1,3,5 | sort
      ls -d /dev/null /dev/fd /dev/shm /proc/1 /sys/kernel
      echo $HOME $PATH; pwd`;
    const { stdout, stderr, exitCode } = await guest.agent.run(["sh", "-c", script]);
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
    const results = await Promise.all(inputs.map((input) => guest.agent.run(["cat"], { stdin: input })));
    results.forEach((result, i) => {
      assert.ok(inputs[i]?.equals(result.stdoutBytes), `command ${String(i)}: other bytes`);
    });
    const user = await guest.agent.run(["sh", "-c", "id -u; id -g; pwd; kill -9 $$"], { user: "someone" });
    assert.deepEqual([user.stdout, user.signal], ["1000\n1000\n/home/someone\n", "SIGKILL"]);
  });

  it("a signal that comes before its program has begun ends it, whatever init does with such a one", async () => {
    for (const signal of ["SIGTERM", "SIGUSR1", "SIGUSR2", "SIGHUP"]) {
      const ended = new Promise<ExitStatus>((resolve, reject) => {
        const events = { onOutput: () => undefined, onExit: resolve, onFailed: reject };
        const command = new GuestCommand(guest.agent.connection, ["cat"], { terminal: true }, events);
        command.kill(signal);
      });
      assert.equal((await ended).signal, signal);
    }
  });

  it("mounts with flags and options, at a place that it makes, and unmounts; a refusal has the guest's errno", async () => {
    const { agent } = guest;
    const [MS_RDONLY, MS_NOSUID, MNT_DETACH] = [1, 2, 2];
    const target = "/mnt/new folder/deep";
    await agent.guest.mount("nothing", target, "tmpfs", { flags: MS_NOSUID, data: "size=64k,mode=0700" });
    await agent.files.write(`${target}/file`, "there");
    await assert.rejects(agent.files.write(`${target}/big`, Buffer.alloc(100_000)), { errnoName: "ENOSPC" });
    const mounts = async (): Promise<string[]> =>
      (await agent.files.readText("/proc/mounts")).split("\n").filter((line) => line.includes("new\\040folder"));
    assert.match(
      (await mounts()).join(),
      /^nothing \/mnt\/new\\040folder\/deep tmpfs rw,nosuid,[^ ]*size=64k,mode=700/,
    );
    // Another one over it, which cannot be written.
    await agent.guest.mount("over", target, "tmpfs", { flags: MS_RDONLY });
    await assert.rejects(agent.files.write(`${target}/file`, "no"), { errnoName: "EROFS" });
    const file = await agent.exec(["sh", "-c", `cd "${target}"; echo in; read line`]);
    await file.stdout.take(1).toArray();
    await assert.rejects(agent.guest.umount(target), { code: "ERR_GUEST_REQUEST", errnoName: "EBUSY" });
    await agent.guest.umount(target, { flags: MNT_DETACH });
    file.stdin.end();
    await file.exit;
    assert.equal(await agent.files.readText(`${target}/file`), "there");
    await agent.guest.umount(target);
    assert.deepEqual(await mounts(), []);
    await assert.rejects(agent.guest.umount(target), { errnoName: "EINVAL" });
    await assert.rejects(agent.guest.mount("none", "/mnt", "no-such-type"), { errnoName: "ENODEV" });
    await assert.rejects(agent.guest.mount("none", "/etc/passwd/below", "tmpfs"), { errnoName: "ENOTDIR" });
    await assert.rejects(agent.guest.mount("none", "mnt", "tmpfs"), { code: "ERR_CONFIG" });
  });

  it("sets an interface up in the words of ip=, with its resolver; what is none is refused", async () => {
    const { agent } = guest;
    await agent.guest.setNetwork("10.9.8.7:::255.255.255.0::lo::10.9.8.1");
    const { stdout } = await agent.run([
      "sh",
      "-c",
      "busybox ip addr show lo; busybox ping -c 1 10.9.8.7; cat /etc/resolv.conf",
    ]);
    assert.match(stdout, /inet 10\.9\.8\.7\/24 /);
    assert.match(stdout, /1 packets received/);
    assert.match(stdout, /\nnameserver 10\.9\.8\.1\n$/);
    const refused = { code: "ERR_GUEST_REQUEST", errnoName: "ENODEV" };
    await assert.rejects(agent.guest.setNetwork("10.9.8.7:::255.255.255.0::eth7"), refused);
    for (const none of ["", "dhcp", "10.9.8", "10.9.8.256::::::"])
      await assert.rejects(agent.guest.setNetwork(none), { errnoName: "EINVAL" }, none);
    // As it was.
    await agent.guest.setNetwork("127.0.0.1:::255.0.0.0::lo");
  });

  it("what ran when a snapshot was taken runs on in its clone, which has another host", async () => {
    const server = await guest.agent.exec(["sh", "-c", "while :; do echo x; read -t 1 line; done"]);
    server.stdout.resume();
    server.exit.catch(() => undefined);
    await guest.vm.pause();
    await createSnapshot(guest.vm, join(folder, "snapshot"), { resume: true });
    const snapshot = OpenSnapshot.open(join(folder, "snapshot"));
    const clone = begin(snapshot, {});
    const about = await clone.agent.run(["cat", `/proc/${String(server.pid)}/comm`]);
    assert.equal(about.stdout, "sh\n");
    const random = ["cat", "/proc/sys/kernel/random/uuid"];
    assert.notEqual((await clone.agent.run(random)).stdout, (await guest.agent.run(random)).stdout);
    server.cancel();
    await stop(clone);
    snapshot.close();
  });

  it("a program is held behind its exec, and goes on in any guest of that snapshot", async () => {
    assert.ok(template !== undefined);
    const command = ["cat", "/proc/sys/kernel/random/uuid", "-"];
    const holder = begin(template, { nonce: NONCE });
    const events = { onOutput: () => undefined, onExit: () => undefined, onFailed: () => undefined };
    new GuestCommand(holder.agent.connection, command, { hold: true }, events);
    await holder.point;
    await holder.vm.pause();
    await createSnapshot(holder.vm, join(folder, "held"), { base: dirname(template.path), resume: false });
    await stop(holder);
    const held = OpenSnapshot.open(join(folder, "held"));
    const outputs: string[] = [];
    for (const input of ["first", "second"]) {
      const clone = begin(held, { isGreeted: true });
      let output = "";
      const status = await new Promise<ExitStatus>((resolve, reject) => {
        const watched: CommandEvents = {
          onOutput: (which, bytes) => {
            output += bytes.toString();
            one.consumed(which, bytes.length);
          },
          onExit: resolve,
          onFailed: reject,
        };
        const one = new GuestCommand(clone.agent.connection, command, { hold: true }, watched, HELD_STREAM);
        one.write(Buffer.from(input));
        one.end();
      });
      assert.deepEqual([status.exitCode, output.slice(-input.length)], [0, input]);
      outputs.push(output.slice(0, 36));
      await stop(clone);
    }
    assert.notEqual(outputs[0], outputs[1]);
    held.close();
  });

  it("ends with the status that it is told", async () => {
    await guest.agent.guest.setIdentity({ hostname: "another" });
    assert.ok(
      (await guest.agent.run(["cat", "/etc/hostname", "/proc/sys/kernel/hostname"])).stdout === "another\nanother\n",
    );
    await guest.agent.guest.powerOff(7);
    const exit = await guest.ends;
    assert.deepEqual([exit.outcome, exit.exitStatus], ["poweroff", 7]);
  });
});
