// Needs: root, a built program and guest, the lab. vmlet-firecracker where there is no /dev/kvm that can be used: one guest for all.
import assert from "node:assert/strict";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { guestFile } from "../../vmm/host/guest-files.js";
import { labBase } from "../../vmm/lab/image.js";
import { missingLabPrograms } from "../../vmm/lab/programs.js";
import { apiRequest, type Reply } from "../helpers/api-request.js";
import { countBoot } from "../helpers/booted.js";
import { withPrivateDev } from "../helpers/private-dev.js";
import { PROGRAM as VMLET, start, type Running } from "../helpers/program.js";
import { skip } from "../helpers/skip.js";

const PROGRAM = resolve("dist/vmlet-firecracker.js");
/** Of a lab that is made anew, and a boot in it, on a busy host. */
const LIMIT_MS = 400_000;
const SECTOR = 512;

describe("boot: firecracker without a /dev/kvm", function () {
  this.timeout(LIMIT_MS);
  let folder = "";
  let running: Running | undefined;

  before(async function () {
    const missing = missingLabPrograms();
    const reason =
      (process.getuid?.() === 0 ? undefined : "not root: /dev cannot be another one") ??
      (missing.length === 0 ? undefined : `the lab lacks ${missing.join(", ")}`) ??
      (existsSync(PROGRAM) ? undefined : "dist/vmlet-firecracker.js is not built") ??
      (existsSync(guestFile("initramfs.cpio")) ? undefined : "the guest is not built");
    if (reason !== undefined) skip(this, reason);
    folder = mkdtempSync(join(tmpdir(), "vmlet-firecracker-lab-"));
    await labBase(resolve("."));
  });

  afterEach(async () => {
    running?.child.kill("SIGKILL");
    await running?.ended;
    running = undefined;
  });

  after(() => {
    if (folder !== "") rmSync(folder, { recursive: true, force: true });
  });

  /** Where there is no /dev/kvm. */
  function firecracker(...argv: string[]): Running {
    const [file = "", ...words] = withPrivateDev("", [PROGRAM, ...argv].map((word) => `'${word}'`).join(" "));
    running = start([file, ...words], { stdio: ["pipe", "pipe", "pipe"] }, LIMIT_MS);
    return running;
  }

  async function until(what: string, isThere: () => boolean): Promise<void> {
    for (let tries = 0; !isThere(); tries++) {
      assert.ok(tries < 2000, `there is no ${what}`);
      await sleep(10);
    }
  }

  const ask = (method: string, path: string, body?: unknown): Promise<Reply> =>
    apiRequest({ socketPath: join(folder, "api.sock"), method, path, body, timeoutMs: LIMIT_MS / 2 });

  async function done(method: string, path: string, body?: unknown): Promise<void> {
    const { status, body: said } = await ask(method, path, body);
    assert.equal(status, 204, `${method} ${path}: ${JSON.stringify(said)}`);
  }

  async function refused(path: string, body: unknown, message: RegExp): Promise<void> {
    const { status, body: said } = await ask("PUT", path, body);
    assert.equal(status, 400, path);
    assert.match(String(said["fault_message"]), message);
  }

  const command = (script: string): string =>
    `vmlet.exec=${Buffer.from(["sh", "-c", script].join("\0")).toString("base64url")}`;
  const source = (script: string) => ({
    kernel_image_path: guestFile("default/vmlinux"),
    initrd_path: guestFile("initramfs.cpio"),
    boot_args: `console=ttyS0 quiet reboot=k panic=-1 ${command(script)}`,
  });
  const disk = (name: string, sectors: number): string => {
    writeFileSync(join(folder, name), Buffer.alloc(sectors * SECTOR));
    return join(folder, name);
  };
  /** What a guest has written is on its way for some tenths of a second, whether it flushes or not. */
  async function begins(path: string, words: string): Promise<void> {
    const bytes = (): string => readFileSync(path).subarray(0, words.length).toString("latin1");
    for (let tries = 0; bytes() !== words && tries < 2000; tries++) await sleep(10);
    assert.equal(bytes(), words, path);
  }

  it("a guest's console, disks, balloon and keys are as on a host with KVM; exit code 0 after its end", async () => {
    const [first, second] = [disk("first", 64), disk("second", 128)];
    const script = [
      "echo first >/dev/vda; sync; echo begun",
      "read -r line; echo got $line $(cat /sys/block/vda/size)",
      "echo later >/dev/vda; sync",
      'echo "written $(cat /sys/block/vdb/ro)"; read -r last',
    ].join("; ");
    const log = join(folder, "log");
    const vm = firecracker(
      "--api-sock",
      join(folder, "api.sock"),
      "--log-path",
      log,
      "--metrics-path",
      join(folder, "metrics"),
    );
    await until("a socket", () => existsSync(join(folder, "api.sock")));
    await done("PUT", "/machine-config", { vcpu_count: 2, mem_size_mib: 128 });
    await done("PUT", "/boot-source", source(script));
    await done("PUT", "/drives/data", { drive_id: "data", path_on_host: first, is_root_device: false });
    const readonly = { drive_id: "ro", path_on_host: disk("readonly", 8), is_root_device: false, is_read_only: true };
    await done("PUT", "/drives/ro", readonly);
    await done("PUT", "/balloon", { amount_mib: 0, deflate_on_oom: true, stats_polling_interval_s: 1 });
    const before = (await ask("GET", "/vm/config")).body;
    const place =
      /^A guest in the lab, an emulated host, cannot have .*: leave that out, or use a host with a \/dev\/kvm \(/;
    await refused("/network-interfaces/eth0", { iface_id: "eth0", host_dev_name: "lo" }, place);
    await refused("/vsock", { guest_cid: 3, uds_path: join(folder, "v.sock") }, place);
    const saved = { snapshot_path: "state", mem_backend: { backend_type: "File", backend_path: "memory" } };
    await refused("/snapshot/load", saved, /snapshot/i);
    assert.deepEqual((await ask("GET", "/vm/config")).body, before);

    await done("PUT", "/actions", { action_type: "InstanceStart" });
    assert.equal((await ask("GET", "/")).body["state"], "Running");
    await vm.until("begun");
    countBoot();
    await begins(first, "first");
    await done("PATCH", "/vm", { state: "Paused" });
    assert.equal((await ask("GET", "/")).body["state"], "Paused");
    await refused(
      "/snapshot/create",
      { snapshot_path: "state", mem_file_path: "memory" },
      /use a host with a \/dev\/kvm/,
    );
    await done("PATCH", "/vm", { state: "Resumed" });

    const missing = await ask("PATCH", "/drives/data", { drive_id: "data", path_on_host: join(folder, "none") });
    assert.deepEqual(
      [missing.status, missing.body["fault_message"]],
      [400, `Drive data: ${join(folder, "none")}: no such file`],
    );
    await done("PATCH", "/drives/data", {
      drive_id: "data",
      path_on_host: second,
      rate_limiter: { ops: { size: 1000, refill_time: 100 } },
    });
    vm.child.stdin?.write("these words\n");
    await vm.until("got these words 128");
    await vm.until("written 1");
    await begins(second, "later");
    await begins(first, "first");

    await done("PATCH", "/balloon", { amount_mib: 16 });
    const { body: balloon } = await ask("GET", "/balloon/statistics");
    assert.deepEqual([balloon["target_mib"], Number(balloon["total_memory"]) > 2 ** 26], [16, true]);
    await done("PUT", "/actions", { action_type: "FlushMetrics" });
    const lines = readFileSync(join(folder, "metrics"), "utf8").trimEnd().split("\n");
    const { block } = JSON.parse(lines.at(-1) ?? "") as { readonly block: { readonly writes: number } };
    assert.ok(block.writes > 0, lines.at(-1));
    const said = readFileSync(log, "utf8");
    assert.doesNotMatch(said, /the file before/, said);
    vm.child.stdin?.write("end\n");
    const { status, stderr } = await vm.ended;
    assert.deepEqual([status, stderr, existsSync(join(folder, "api.sock"))], [0, "", false]);
    assert.match(
      readFileSync(log, "utf8"),
      /\/dev\/kvm does not exist: booting in the lab, an emulated host \(slower\)/,
    );
  });

  it("a signal while the lab comes up ends all of it, and leaves nothing", async () => {
    const temporary = join(folder, "temporary");
    mkdirSync(temporary);
    const before = process.env["TMPDIR"];
    process.env["TMPDIR"] = temporary;
    let vm: Running;
    try {
      vm = firecracker("--api-sock", join(folder, "api.sock"));
    } finally {
      if (before === undefined) delete process.env["TMPDIR"];
      else process.env["TMPDIR"] = before;
    }
    await until("a socket", () => existsSync(join(folder, "api.sock")));
    // As large as the lab that has been started, which is there by now.
    await done("PUT", "/machine-config", { vcpu_count: 2, mem_size_mib: 128 });
    await done("PUT", "/boot-source", source("true"));
    await done("PUT", "/actions", { action_type: "InstanceStart" });
    const ofLabs = (): string[] => readdirSync(temporary).filter((name) => name.startsWith("vmlet-lab-"));
    await until("lab", () => ofLabs().length > 0);
    vm.child.kill("SIGTERM");
    const { status } = await vm.ended;
    assert.deepEqual([status, ofLabs(), existsSync(join(folder, "api.sock"))], [143, [], false]);
  });

  it("a configuration file that asks for what the lab has not: one message, exit code 152", async () => {
    const file = join(folder, "vm.json");
    const config = {
      "boot-source": source("true"),
      drives: [],
      "network-interfaces": [{ iface_id: "eth0", host_dev_name: "lo" }],
    };
    writeFileSync(file, JSON.stringify(config));
    const { status, stderr } = await firecracker("--no-api", "--config-file", file).ended;
    assert.equal(status, 152);
    assert.match(
      stderr,
      /Could not Start MicroVM .*: A guest in the lab, an emulated host, cannot have network interfaces/,
    );
    const own = await start([VMLET, "boot", "--accel", "lab", "--jail", "off", "--config-file", file], {}, LIMIT_MS)
      .ended;
    assert.deepEqual(
      [own.status, own.stdout, own.stderr],
      [
        65,
        "",
        "vmlet: network-interfaces cannot reach this host from the lab: leave it out, or use a host with a /dev/kvm\n",
      ],
    );
  });
});
