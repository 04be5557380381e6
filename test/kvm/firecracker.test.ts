// Needs: a /dev/kvm of any kind, and dist/. vmlet-firecracker with guests of a few instructions: configuration file, API, signals, exit
// codes, log and metrics, snapshots, requests at random to a guest that runs.
import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { Agent } from "node:http";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { caseSeed, Random } from "../fuzz/random.js";
import { apiRequest, type Reply } from "../helpers/api-request.js";
import { randomRequest } from "../helpers/firecracker-fuzz.js";
import { whyNoKvm } from "../helpers/kvm-guard.js";
import { asm, miniKernel, type MiniKernel } from "../helpers/mini-kernel.js";
import { PROGRAM as VMLET, start, type Running } from "../helpers/program.js";
import { skip } from "../helpers/skip.js";

const PROGRAM = resolve("dist/vmlet-firecracker.js");
const FUZZ_REQUESTS = 2000;

/** What a descriptor of the process is; one that it has closed meanwhile is nothing. */
function linkOf(pid: number, fd: string): string {
  try {
    return readlinkSync(`/proc/${String(pid)}/fd/${fd}`);
  } catch {
    return "";
  }
}

describe("kvm: firecracker", function () {
  this.timeout(60_000);
  let folder: string;
  const kernels: MiniKernel[] = [];
  const running: Running[] = [];
  const agents: Agent[] = [];

  before(function () {
    const reason = whyNoKvm();
    if (reason !== undefined) skip(this, reason);
  });
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "vmlet-test-"));
    writeFileSync(join(folder, "disk"), Buffer.alloc(8192));
  });
  afterEach(async () => {
    for (const agent of agents.splice(0)) agent.destroy();
    for (const one of running.splice(0)) {
      one.child.kill("SIGKILL");
      await one.ended;
    }
    for (const kernel of kernels.splice(0)) kernel.remove();
    rmSync(folder, { recursive: true });
  });

  function kernelOf(...code: number[][]): string {
    const kernel = miniKernel(...code);
    kernels.push(kernel);
    return kernel.path;
  }

  function run(...argv: string[]): Running {
    const one = start([PROGRAM, ...argv], { cwd: folder });
    running.push(one);
    return one;
  }

  type Ask = (method: string, path: string, body?: unknown) => Promise<Reply>;

  /** By a connection that is kept. */
  function client(socket: string): Ask {
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    agents.push(agent);
    return (method, path, body) =>
      apiRequest({ socketPath: join(folder, socket), method, path, body, agent, timeoutMs: 20_000 });
  }

  async function withApi(...argv: string[]): Promise<{ vm: Running; ask: Ask; done: Ask }> {
    const vm = run("--api-sock", "api.sock", ...argv);
    const socket = join(folder, "api.sock");
    for (let tries = 0; !existsSync(socket); tries++) {
      assert.ok(tries < 1000, "there is no socket");
      await sleep(10);
    }
    const ask = client("api.sock");
    const done: Ask = async (method, path, body) => {
      const reply = await ask(method, path, body);
      assert.equal(reply.status, 204, `${method} ${path}: ${JSON.stringify(reply.body)}`);
      return reply;
    };
    return { vm, ask, done };
  }

  async function configure(done: Ask, kernel: string, machine: object = {}): Promise<void> {
    await done("PUT", "/machine-config", { vcpu_count: 1, mem_size_mib: 32, ...machine });
    await done("PUT", "/boot-source", { kernel_image_path: kernel, boot_args: "console=ttyS0" });
    await done("PUT", "/drives/data", { drive_id: "data", path_on_host: "disk", is_root_device: false });
  }

  it("a configuration file without an API: the guest's console, its boot time, exit code 0 after its reset", async () => {
    const kernel = kernelOf(asm.milestone(123), asm.print("hello from the guest\n"), asm.reset());
    const file = {
      "boot-source": { kernel_image_path: kernel, boot_args: "console=ttyS0", initrd_path: null },
      drives: [{ drive_id: "data", path_on_host: "disk", is_root_device: false, is_read_only: true }],
      "machine-config": { vcpu_count: 1, mem_size_mib: 32, smt: false },
      "network-interfaces": [],
      vsock: null,
      "of-a-later-version": 1,
    };
    writeFileSync(join(folder, "vm.json"), JSON.stringify(file));
    const { status, stdout } = await run("--no-api", "--config-file", "vm.json", "--boot-timer").ended;
    assert.equal(status, 0, stdout);
    // Both go to standard output, and a line of the log may stand between two bytes of the console.
    assert.match(stdout.replace(/\d{4}-\d\d-\d\dT.*\n/g, ""), /hello from the guest\n/);
    assert.match(stdout, /Guest-boot-time = \d+ us \d+ ms, \d+ CPU us \d+ CPU ms/);
    assert.match(stdout, /Firecracker exiting successfully/);
    const own = spawnSync(VMLET, ["boot", "--config-file", "vm.json", "--report", "report.json"], {
      cwd: folder,
      timeout: 30_000,
      encoding: "utf8",
      input: "",
    });
    assert.equal(own.status, 100, own.stderr);
    assert.match(own.stdout, /hello from the guest\n/);
    assert.match(readFileSync(join(folder, "report.json"), "utf8"), /"outcome": "reboot"/);
  });

  it("command lines and files that are wrong: exit codes, one message, nothing left behind", async () => {
    const kernel = kernelOf(asm.reset());
    const config = (text: string): string => {
      writeFileSync(join(folder, "bad.json"), text);
      return "bad.json";
    };
    const cases: (readonly [argv: string[], status: number, message: RegExp])[] = [
      [["--nonsense"], 153, /Unknown argument --nonsense/],
      [["nonsense"], 153, /Unknown argument nonsense/],
      [["--id"], 153, /--id needs a value/],
      [["--id", "a b"], 153, /--id a b: not 1 to 64/],
      [["--id", "a", "--id", "b"], 153, /--id is given twice/],
      [["--no-api"], 153, /--no-api needs --config-file/],
      [["--no-seccomp", "--seccomp-filter", "x"], 153, /cannot be used together/],
      [["--http-api-max-payload-size", "many"], 153, /not a whole number/],
      [["--level", "Loud"], 152, /--level Loud/],
      [["--log-path", "missing/log"], 1, /missing\/log: no such file/],
      [["--metadata", "missing"], 1, /missing: no such file/],
      [["--no-api", "--config-file", "missing"], 152, /missing: no such file/],
      [["--no-api", "--config-file", config("{")], 152, /bad\.json: It is not JSON/],
    ];
    for (const [argv, status, message] of cases) {
      const ended = await run(...argv, "--api-sock", "none.sock").ended;
      assert.equal(ended.status, status, `${argv.join(" ")}: ${ended.stdout}${ended.stderr}`);
      assert.match(ended.stderr, message);
    }
    const machines: (readonly [section: object, message: RegExp])[] = [
      [{ "machine-config": { mem_size_mib: 32 } }, /machine-config: no vcpu_count is given/],
      [{ "machine-config": { vcpu_count: 1 } }, /machine-config: no mem_size_mib is given/],
      [{ "boot-source": { kernel_image_path: "missing" } }, /missing: no such file/],
      [
        { drives: [{ drive_id: "x", is_root_device: true, path_on_host: "disk", colour: 1 }] },
        /unknown field "colour"/,
      ],
    ];
    for (const [section, message] of machines) {
      const file = { "boot-source": { kernel_image_path: kernel }, drives: [], ...section };
      writeFileSync(join(folder, "vm.json"), JSON.stringify(file));
      const ended = await run("--config-file", "vm.json", "--api-sock", "none.sock").ended;
      assert.equal(ended.status, 152, ended.stdout);
      assert.match(ended.stderr, message);
    }
    assert.equal(existsSync(join(folder, "none.sock")), false);
    writeFileSync(join(folder, "taken"), "");
    const taken = await run("--api-sock", "taken").ended;
    assert.equal(taken.status, 1);
    assert.match(taken.stderr, /taken: exists already/);
    for (const [argv, text] of [
      [["--version"], /^Firecracker v\d\.\d\.\d\n/],
      [["--help"], /--api-sock <PATH>/],
      [["--snapshot-version"], /^v\d+\.\d+\.\d+\n$/],
    ] as const) {
      const ended = await run(...argv).ended;
      assert.equal(ended.status, 0);
      assert.match(ended.stdout, text);
    }
  });

  it("a client's usual sequence, pause and resume, a drive that changes, the end by a signal", async () => {
    const { vm, ask, done } = await withApi("--id", "vm-1");
    assert.deepEqual((await ask("GET", "/")).body, {
      id: "vm-1",
      state: "Not started",
      vmm_version: "1.9.0",
      app_name: "Firecracker",
    });
    await configure(done, kernelOf(asm.count()));
    await done("PUT", "/balloon", { amount_mib: 2, deflate_on_oom: true, stats_polling_interval_s: 1 });
    await done("PUT", "/entropy", {});
    await done("PUT", "/vsock", { guest_cid: 3, uds_path: "v.sock" });
    await done("PUT", "/actions", { action_type: "InstanceStart" });
    await vm.until("\x01\x02\x03");
    assert.equal((await ask("GET", "/")).body["state"], "Running");
    const told = (await ask("GET", "/vm/config")).body;
    const backend = { backend_type: "File", backend_path: "disk" };
    for (const [method, path, body] of [
      ["PUT", "/actions", { action_type: "InstanceStart" }],
      ["PUT", "/boot-source", { kernel_image_path: "disk" }],
      ["PUT", "/machine-config", { vcpu_count: 1, mem_size_mib: 32 }],
      ["PATCH", "/machine-config", { vcpu_count: 2 }],
      ["PUT", "/cpu-config", {}],
      ["PUT", "/drives/data", { drive_id: "data", path_on_host: "disk", is_root_device: false }],
      ["PUT", "/drives/more", { drive_id: "more", path_on_host: "disk", is_root_device: false }],
      ["PUT", "/network-interfaces/eth0", { iface_id: "eth0", host_dev_name: "lo" }],
      ["PUT", "/vsock", { guest_cid: 4, uds_path: "other.sock" }],
      ["PUT", "/balloon", { amount_mib: 1, deflate_on_oom: false }],
      ["PUT", "/entropy", {}],
      ["PUT", "/serial", {}],
      ["PUT", "/mmds/config", { network_interfaces: ["eth0"] }],
      ["PUT", "/logger", { level: "Off" }],
      ["PUT", "/metrics", { metrics_path: "late" }],
      ["PUT", "/snapshot/load", { snapshot_path: "disk", mem_backend: backend }],
    ] as const) {
      const { status, body: fault } = await ask(method, path, body);
      assert.equal(status, 400, path);
      assert.match(String(fault["fault_message"]), /not supported after starting/, path);
    }
    for (const [method, path, body, message] of [
      ["PATCH", "/balloon", { amount_mib: 33 }, /33/],
      ["PATCH", "/drives/data", { drive_id: "data", path_on_host: "missing" }, /missing/],
      ["PATCH", "/drives/data", { drive_id: "data", path_on_host: "/" }, /folder|directory/],
      ["PATCH", "/drives/none", { drive_id: "none" }, /no drive none/],
      ["PATCH", "/network-interfaces/eth0", { iface_id: "eth0" }, /no network interface eth0/],
      ["PUT", "/snapshot/create", { snapshot_path: "s", mem_file_path: "m" }, /paused/],
      ["PATCH", "/balloon/hinting/start", {}, /hinting/],
      ["DELETE", "/drives/data", undefined, /PCI/],
    ] as const) {
      const { status, body: fault } = await ask(method, path, body);
      assert.equal(status, 400, path);
      assert.match(String(fault["fault_message"]), message, path);
    }
    assert.deepEqual((await ask("GET", "/vm/config")).body, told);
    assert.deepEqual(
      ["late", "other.sock", "s", "m"].filter((name) => existsSync(join(folder, name))),
      [],
    );
    await done("PATCH", "/vm", { state: "Paused" });
    await done("PATCH", "/vm", { state: "Paused" });
    assert.equal((await ask("GET", "/")).body["state"], "Paused");
    writeFileSync(join(folder, "other"), Buffer.alloc(4096));
    await done("PATCH", "/drives/data", { drive_id: "data", path_on_host: "other" });
    const limit = { rate_limiter: { ops: { size: 10, refill_time: 100 }, bandwidth: null } };
    await done("PATCH", "/drives/data", { drive_id: "data", path_on_host: null, ...limit });
    assert.equal((await ask("PATCH", "/drives/none", { drive_id: "none", path_on_host: "other" })).status, 400);
    assert.equal((await ask("PATCH", "/drives/data", { drive_id: "data", path_on_host: "missing" })).status, 400);
    const { drives } = (await ask("GET", "/vm/config")).body as { drives: { path_on_host: string }[] };
    assert.equal(drives[0]?.path_on_host, "other");
    await done("PATCH", "/balloon", { amount_mib: 4 });
    assert.equal((await ask("GET", "/balloon/statistics")).body["target_mib"], 4);
    await done("PATCH", "/balloon/statistics", { stats_polling_interval_s: 2 });
    assert.equal((await ask("PATCH", "/balloon/statistics", { stats_polling_interval_s: 0 })).status, 400);
    await done("PATCH", "/vm", { state: "Resumed" });
    await done("PATCH", "/vm", { state: "Resumed" });
    await done("PUT", "/actions", { action_type: "SendCtrlAltDel" });
    await done("PUT", "/actions", { action_type: "FlushMetrics" });
    vm.child.kill("SIGTERM");
    const { status, stdout } = await vm.ended;
    assert.equal(status, 128 + 15);
    assert.equal(existsSync(join(folder, "api.sock")), false);
    assert.equal(existsSync(join(folder, "v.sock")), false);
    // What the guest has counted is there without a gap, over pause and resume.
    const counted = [...Buffer.from(stdout, "latin1")].slice(stdout.indexOf("\x01\x02\x03"));
    assert.ok(counted.length > 100);
  });

  it("what is made before a start asks for it: a later PUT and a file that changes count, and it costs little memory", async () => {
    const says = (text: string): string => kernelOf(asm.print(text), asm.reset());
    const file = join(folder, "kernel");
    writeFileSync(file, readFileSync(says("first\n")));
    const { vm, ask, done } = await withApi();
    const resident = (): number =>
      Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${String(vm.pid)}/status`, "utf8"))?.[1]);
    const virtualMachines = (): number =>
      readdirSync(`/proc/${String(vm.pid)}/fd`).filter((fd) => linkOf(vm.pid, fd).includes("kvm-vm")).length;
    await sleep(500);
    const before = resident();
    await configure(done, says("never\n"), { mem_size_mib: 1024 });
    await built(virtualMachines);
    assert.ok(resident() - before < 32 * 1024, `${String(before)} KiB, then ${String(resident())} KiB`);
    // Each of these is the guest's own, and none of the one before.
    await done("PUT", "/boot-source", { kernel_image_path: "kernel", boot_args: "console=ttyS0" });
    await built(virtualMachines);
    await done("PATCH", "/machine-config", { mem_size_mib: 64 });
    await built(virtualMachines);
    rmSync(file);
    const refused = await ask("PUT", "/actions", { action_type: "InstanceStart" });
    assert.equal(refused.status, 400);
    assert.match(String(refused.body["fault_message"]), /kernel: cannot be opened/);
    assert.equal((await ask("GET", "/")).body["state"], "Not started");
    writeFileSync(file, readFileSync(says("second\n")));
    await done("PUT", "/boot-source", { kernel_image_path: "kernel", boot_args: "console=ttyS0" });
    await built(virtualMachines);
    writeFileSync(file, readFileSync(says("third!\n")));
    await done("PUT", "/actions", { action_type: "InstanceStart" });
    const { status, stdout } = await vm.ended;
    assert.equal(status, 0, stdout);
    assert.match(stdout, /third!\n/);
    assert.doesNotMatch(stdout, /never|first|second/);
  });

  /** Waits until a client that rests has its VM. */
  async function built(virtualMachines: () => number): Promise<void> {
    for (let tries = 0; virtualMachines() !== 1; tries++) {
      assert.ok(tries < 500, "nothing is made");
      await sleep(10);
    }
    // One that a request is about to replace, perhaps: its successor is there by then.
    await sleep(150);
    assert.equal(virtualMachines(), 1);
  }

  it("a hang-up has its own exit code; a triple fault is an error", async () => {
    const first = await withApi();
    await configure(first.done, kernelOf(asm.spin()));
    await first.done("PUT", "/actions", { action_type: "InstanceStart" });
    first.vm.child.kill("SIGHUP");
    assert.equal((await first.vm.ended).status, 156);
    const second = await withApi();
    await configure(second.done, kernelOf(asm.undefinedInstruction()));
    await second.done("PUT", "/actions", { action_type: "InstanceStart" });
    const { status, stdout } = await second.vm.ended;
    assert.equal(status, 1);
    assert.match(stdout, /triple fault/);
  });

  it("log and metrics go to FIFOs, and the console to a file", async () => {
    for (const name of ["log", "metrics"]) execFileSync("mkfifo", [join(folder, name)], { timeout: 10_000 });
    const readers = ["log", "metrics"].map((name) => start(["cat", join(folder, name)]));
    running.push(...readers);
    const { vm, done } = await withApi();
    await done("PUT", "/logger", { log_path: "log", level: "Debug", show_level: true, show_log_origin: true });
    await done("PUT", "/metrics", { metrics_path: "metrics", emit_id: true, properties: { host: "a" } });
    await configure(done, kernelOf(asm.print("to the file\n"), asm.spin()));
    await done("PUT", "/serial", { serial_out_path: "console", rate_limiter: { size: 1000, refill_time: 100 } });
    await done("PUT", "/actions", { action_type: "InstanceStart" });
    await done("PUT", "/actions", { action_type: "FlushMetrics" });
    for (let tries = 0; !readFileSync(join(folder, "console"), "latin1").includes("to the file\n"); tries++) {
      assert.ok(tries < 500);
      await sleep(10);
    }
    vm.child.kill("SIGTERM");
    await vm.ended;
    const [log, metrics] = await Promise.all(readers.map(async ({ ended }) => (await ended).stdout));
    assert.match(log ?? "", /^Running Firecracker v1\.9\.0\n/);
    assert.match(
      log ?? "",
      /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9} \[anonymous-instance:main:INFO:vmm\/firecracker\] /m,
    );
    const lines = (metrics ?? "").trim().split("\n");
    assert.ok(lines.length >= 2);
    for (const line of lines) {
      const parsed = JSON.parse(line) as Record<string, Record<string, number>>;
      assert.equal(typeof parsed["utc_timestamp_ms"], "number");
      assert.deepEqual(parsed["id"], "anonymous-instance");
      assert.deepEqual(parsed["properties"], { host: "a" });
      for (const group of ["api_server", "block", "logger", "put_api_requests", "vcpu"])
        assert.ok(group in parsed, group);
    }
    assert.equal(
      (JSON.parse(lines[0] ?? "") as { put_api_requests: Record<string, number> }).put_api_requests["drives_count"],
      1,
    );
  });

  it("snapshots: full, a difference in place, one with holes; another process goes on where the guest was", async () => {
    const { vm, ask, done } = await withApi();
    await configure(done, kernelOf(asm.countInMemory()), { track_dirty_pages: true });
    await done("PUT", "/actions", { action_type: "InstanceStart" });
    await vm.until("\x01\x02\x03");
    const create = (state: string, memory: string, kind?: string): Promise<Reply> =>
      ask("PUT", "/snapshot/create", {
        snapshot_path: state,
        mem_file_path: memory,
        ...(kind && { snapshot_type: kind }),
      });
    assert.equal((await create("s1", "m1")).status, 400);
    await done("PATCH", "/vm", { state: "Paused" });
    assert.equal((await create("s1", "m1")).status, 204);
    assert.equal((await create("missing/s", "m1x")).status, 400);
    await done("PATCH", "/vm", { state: "Resumed" });
    await sleep(50);
    await done("PATCH", "/vm", { state: "Paused" });
    assert.equal((await create("s2", "m2", "Diff")).status, 204);
    assert.ok(statSync(join(folder, "m2")).blocks < statSync(join(folder, "m2")).size / 512 / 4);
    execFileSync("cp", ["m1", "whole"], { cwd: folder, timeout: 10_000 });
    await done("PATCH", "/vm", { state: "Resumed" });
    await sleep(50);
    await done("PATCH", "/vm", { state: "Paused" });
    assert.equal((await create("s3", "m1", "Diff")).status, 204);
    vm.child.kill("SIGKILL");
    await vm.ended;
    rmSync(join(folder, "api.sock"));
    const described = await run("--describe-snapshot", "s1").ended;
    assert.equal(described.status, 0, described.stderr);
    assert.equal(described.stdout, (await run("--snapshot-version").ended).stdout);
    assert.equal((await run("--describe-snapshot", "m1").ended).status, 1);
    const other = await withApi();
    const load = (state: string, memory: string, more: object = {}): Promise<Reply> =>
      other.ask("PUT", "/snapshot/load", {
        snapshot_path: state,
        mem_backend: { backend_type: "File", backend_path: memory },
        ...more,
      });
    for (const [state, memory] of [
      ["s2", "whole"],
      ["missing", "m1"],
      ["m1", "s1"],
      ["disk", "disk"],
    ] as const) {
      assert.equal((await load(state, memory)).status, 400, `${state} ${memory}`);
    }
    assert.equal(
      (await load("s1", "whole", { network_overrides: [{ iface_id: "x", host_dev_name: "y" }] })).status,
      400,
    );
    assert.equal((await other.ask("GET", "/")).body["state"], "Not started");
    assert.equal((await load("s1", "whole")).status, 204);
    assert.equal((await other.ask("GET", "/")).body["state"], "Paused");
    const { drives } = (await other.ask("GET", "/vm/config")).body as { drives: { drive_id: string }[] };
    assert.equal(drives[0]?.drive_id, "data");
    assert.equal((await load("s1", "whole")).status, 400);
    await other.done("PATCH", "/vm", { state: "Resumed" });
    for (let tries = 0; (await other.ask("GET", "/")).body["state"] !== "Running"; tries++) assert.ok(tries < 100);
    await sleep(100);
    other.vm.child.kill("SIGTERM");
    const { stdout, status } = await other.vm.ended;
    assert.equal(status, 128 + 15);
    // It counts on: each byte is one more than that before it.
    const bytes = [...Buffer.from(stdout, "latin1")];
    const gaps = bytes.filter((byte, at) => at > 0 && byte !== (((bytes[at - 1] ?? 0) + 1) & 0xff));
    assert.ok(bytes.length > 500 && gaps.length < bytes.length / 2, `${String(bytes.length)} ${String(gaps.length)}`);
  });

  it(`${String(FUZZ_REQUESTS)} requests at random to a guest that runs leave it running, and grow nothing`, async () => {
    const kernel = kernelOf(asm.spin());
    for (const name of ["kernel"]) writeFileSync(join(folder, name), readFileSync(kernel));
    const { vm, ask, done } = await withApi("--level", "Off");
    await configure(done, "kernel");
    await done("PUT", "/balloon", { amount_mib: 0, deflate_on_oom: true, stats_polling_interval_s: 1 });
    await done("PUT", "/actions", { action_type: "InstanceStart" });
    const resident = (): number =>
      Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${String(vm.pid)}/status`, "utf8"))?.[1]);
    const files = (): number =>
      spawnSync("ls", [`/proc/${String(vm.pid)}/fd`], { timeout: 10_000 })
        .stdout.toString()
        .split("\n").length;
    let early = 0;
    let earlyFiles = 0;
    const counts = new Map<number, number>();
    for (let index = 0; index < FUZZ_REQUESTS; index++) {
      const seed = caseSeed(7, index);
      const { method, path, body } = randomRequest(new Random(seed));
      // Written by every other request: too slow for so many.
      if (path.startsWith("/snapshot/create") || /[^\x21-\x7e]/.test(path)) continue;
      const { status } = await ask(method, path, body);
      counts.set(status, (counts.get(status) ?? 0) + 1);
      if (index === FUZZ_REQUESTS / 4) [early, earlyFiles] = [resident(), files()];
    }
    assert.equal(counts.get(500), undefined, JSON.stringify([...counts]));
    assert.ok((counts.get(400) ?? 0) > 500, JSON.stringify([...counts]));
    await done("PATCH", "/vm", { state: "Resumed" });
    assert.equal((await ask("GET", "/")).body["state"], "Running");
    assert.ok(resident() - early < 48 * 1024, `${String(early)} KiB, then ${String(resident())} KiB`);
    assert.ok(files() <= earlyFiles + 4, `${String(earlyFiles)} files, then ${String(files())}`);
    vm.child.kill("SIGTERM");
    assert.equal((await vm.ended).status, 128 + 15);
  });
});
