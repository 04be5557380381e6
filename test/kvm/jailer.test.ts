// Needs: a /dev/kvm of any kind, root, and `make build` with gcc. Firecracker's interface in a jail: its API, a guest that is saved and goes
// on in another jail, its end, and a guest with its configuration file.
import assert from "node:assert/strict";
import {
  chownSync,
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { apiRequest, type Reply } from "../helpers/api-request.js";
import { whyNoKvm } from "../helpers/kvm-guard.js";
import { asm, miniKernel, type MiniKernel } from "../helpers/mini-kernel.js";
import { start, type Running } from "../helpers/program.js";
import { skip } from "../helpers/skip.js";

const LAUNCHER = resolve("dist/vmlet-jailer");
const PROGRAM = resolve("dist/vmlet-firecracker.js");
const NAME = "vmlet-firecracker.js";
const UID = 12_345;
const LIMIT_MS = 60_000;

describe("kvm: Firecracker's interface in a jail", function () {
  this.timeout(120_000);
  let base = "";
  const kernels: MiniKernel[] = [];
  const running: Running[] = [];

  before(function () {
    const reason = process.getuid?.() === 0 ? whyNoKvm() : "no root";
    if (reason !== undefined) skip(this, reason);
  });
  beforeEach(() => {
    base = mkdtempSync(join(tmpdir(), "vmlet-jail-"));
  });
  afterEach(async () => {
    for (const one of running.splice(0)) {
      one.child.kill("SIGKILL");
      await one.ended;
    }
    for (const kernel of kernels.splice(0)) kernel.remove();
    rmSync(base, { recursive: true, force: true });
  });

  const rootOf = (id: string, name = NAME): string => join(base, name, id, "root");

  /** The root, with the kernel in it; both the program's. */
  function prepare(id: string, name: string, ...code: number[][]): void {
    const kernel = miniKernel(...code);
    kernels.push(kernel);
    mkdirSync(rootOf(id, name), { recursive: true });
    copyFileSync(kernel.path, join(rootOf(id, name), "vmlinux"));
    chownSync(join(rootOf(id, name), "vmlinux"), UID, UID);
  }

  function jailed(id: string, program: string, options: readonly string[], ...words: string[]): Running {
    const needed = ["--id", id, "--exec-file", program, "--uid", String(UID), "--gid", String(UID)];
    const one = start([LAUNCHER, ...needed, "--chroot-base-dir", base, ...options, "--", ...words], {}, LIMIT_MS);
    running.push(one);
    return one;
  }

  async function ask(id: string, method: string, path: string, body?: unknown): Promise<Reply> {
    const socketPath = join(rootOf(id), "run/firecracker.socket");
    for (let tries = 0; !existsSync(socketPath) && tries < 1000; tries++) await sleep(20);
    return apiRequest({ socketPath, method, path, body, timeoutMs: LIMIT_MS });
  }

  async function done(id: string, method: string, path: string, body: unknown): Promise<void> {
    const { status, body: answer } = await ask(id, method, path, body);
    assert.equal(status, 204, JSON.stringify(answer));
  }

  it("its API is a socket in the root; a guest runs, is saved, and goes on in another jail", async () => {
    prepare("a", NAME, asm.print("up\n"), asm.spin());
    const first = jailed("a", PROGRAM, ["--new-net-ns", "--resource-limit", "no-file=1024"]);
    await done("a", "PUT", "/machine-config", { vcpu_count: 1, mem_size_mib: 32 });
    await done("a", "PUT", "/boot-source", { kernel_image_path: "vmlinux" });
    await done("a", "PUT", "/actions", { action_type: "InstanceStart" });
    await first.until("up");

    const own = `/proc/${String(first.pid)}`;
    assert.equal(readFileSync(`${own}/comm`, "utf8"), `${NAME.slice(0, 15)}\n`);
    assert.match(readFileSync(`${own}/status`, "utf8"), new RegExp(`^Uid:\t${String(UID)}\t${String(UID)}`, "m"));
    assert.equal(readdirSync(`${own}/root`).toSorted().join(), "dev,lib,lib64,proc,run,sys,usr,vmlet,vmlinux");
    for (const kind of ["user", "mnt", "ipc", "uts", "net", "cgroup"])
      assert.notEqual(readlinkSync(`${own}/ns/${kind}`), readlinkSync(`/proc/self/ns/${kind}`), kind);

    await done("a", "PATCH", "/vm", { state: "Paused" });
    await done("a", "PUT", "/snapshot/create", { snapshot_path: "state", mem_file_path: "memory" });
    first.child.kill("SIGTERM");
    await first.ended;
    assert.ok(!existsSync(join(rootOf("a"), "run/firecracker.socket")));

    mkdirSync(rootOf("b"), { recursive: true });
    for (const name of ["state", "memory"]) cpSync(join(rootOf("a"), name), join(rootOf("b"), name));
    for (const name of ["state", "memory"]) chownSync(join(rootOf("b"), name), UID, UID);
    jailed("b", PROGRAM, ["--new-pid-ns", "--daemonize"]);
    const memory = { backend_type: "File", backend_path: "memory" };
    await done("b", "PUT", "/snapshot/load", { snapshot_path: "state", mem_backend: memory, resume_vm: true });
    assert.equal((await ask("b", "GET", "/")).body.state, "Running");
    process.kill(Number(readFileSync(join(rootOf("b"), `${NAME}.pid`), "utf8")), "SIGKILL");
  });

  it("a configuration file of the jail, by a link of another name; the exit code is the program's", async () => {
    const link = join(base, "bin/firecracker");
    mkdirSync(join(base, "bin"));
    symlinkSync(PROGRAM, link);
    prepare("a", "firecracker", asm.print("up\n"), asm.powerOff(0), asm.haltForEver());
    const config = {
      "boot-source": { kernel_image_path: "/vmlinux" },
      "machine-config": { vcpu_count: 2, mem_size_mib: 32 },
      drives: [],
    };
    writeFileSync(join(rootOf("a", "firecracker"), "vm.json"), JSON.stringify(config));
    const { status, stdout } = await jailed("a", link, [], "--no-api", "--config-file", "/vm.json").ended;
    assert.deepEqual([status, /^up$/m.test(stdout)], [0, true], stdout);
    assert.equal((await jailed("a", link, [], "--nope").ended).status, 153);
  });
});
