// Needs: a /dev/kvm on which guests run, and a built program. `vmlet run` and its companions, and the class behind them, with
// one image for all: busybox, as a tar.
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ExecError, Vm, VmPool, VmStateError } from "../../vmm/index.js";
import { StateFolder } from "../../vmm/sdk/state-folder.js";
import { countBoot } from "../helpers/booted.js";
import { whyNoKvm } from "../helpers/kvm-guard.js";
import { longestBlock, longestBlockMs } from "../helpers/longest-block.js";
import { PROGRAM } from "../helpers/program.js";
import { skip } from "../helpers/skip.js";
import { tarOf, type TarItem } from "../helpers/tar-builder.js";

const BUSYBOX = "/bin/busybox";
const APPLETS = [
  "sh",
  "cat",
  "ls",
  "true",
  "echo",
  "sleep",
  "id",
  "pwd",
  "env",
  "head",
  "wc",
  "ps",
  "mkdir",
  "seq",
  "kill",
  "hostname",
  "tr",
  "grep",
];
/** Of a boot on a host that is busy with other tests. */
const LIMIT_MS = 240_000;
const TAR_BLOCK = 512;

describe("boot: programs in VMs", function () {
  this.timeout(LIMIT_MS);
  let folder = "";
  let image = "";
  let state: StateFolder;
  const environment = { ...process.env };

  before(function () {
    const reason = whyNoKvm() ?? (existsSync(PROGRAM) ? undefined : "dist/vmlet.js is not built");
    if (reason !== undefined) skip(this, reason);
    if (!existsSync(BUSYBOX)) skip(this, "busybox-static is not installed");
    folder = mkdtempSync(join(tmpdir(), "vmlet-run-"));
    process.env["VMLET_STATE"] = join(folder, "state");
    image = makeImage(folder);
    state = new StateFolder();
  });

  after(() => {
    process.env = environment;
    if (folder !== "") rmSync(folder, { recursive: true, force: true });
  });

  const vmlet = (words: readonly string[], input: string | Buffer = "") =>
    spawnSync(PROGRAM, words, { input, timeout: LIMIT_MS, maxBuffer: 64 * 2 ** 20 });
  const run = (...command: string[]) => vmlet(["run", image, ...command]);
  const text = (bytes: Buffer): string => bytes.toString("utf8");

  it("a command's output, errors and exit code are its own", () => {
    const first = run("sh", "-c", "echo out; echo err >&2; exit 7");
    countBoot();
    assert.equal(text(first.stdout), "out\n");
    assert.match(text(first.stderr), /^(?:vmlet: .*\n)*err\n$/);
    assert.equal(first.status, 7);
    const second = run("sh", "-c", "kill -TERM $$");
    assert.equal(second.status, 128 + 15);
    assert.equal(text(second.stderr), "");
  });

  it("what cannot be run has the statuses of a shell, and vmlet's own failures one of their own", () => {
    const missing = run("no-such-program");
    assert.equal(missing.status, 127);
    assert.match(text(missing.stderr), /no-such-program cannot be run in the guest: .*not found/);
    assert.equal(run("/etc/passwd").status, 126);
    assert.equal(vmlet(["run", join(folder, "none.tar")]).status, 125);
    assert.equal(vmlet(["run", "--memory", "1", image, "true"]).status, 125);
    assert.equal(vmlet(["run", "--timeout", "500ms", image, "sleep", "100"]).status, 124);
    assert.deepEqual(state.list(), [], "nothing is left of VMs in the foreground");
  });

  it("standard input arrives byte by byte, with its end; without -i there is none", () => {
    const bytes = Buffer.concat([randomBytes(300_000), Buffer.from([0, 3, 4, 13, 10, 26, 255])]);
    const { stdout } = vmlet(["run", "-i", image, "cat"], bytes);
    assert.equal(sha256(stdout), sha256(bytes));
    assert.equal(text(vmlet(["run", image, "cat"], bytes).stdout), "");
    assert.equal(text(vmlet(["run", "-i", image, "wc", "-c"], "").stdout).trim(), "0");
  });

  it("environment, folder, user, host name, tmpfs and read-only root are as Docker has them", () => {
    const script =
      "pwd; id -u; id -g; hostname; echo $A-$B; echo x >/made 2>/dev/null || echo read-only; echo y >/scratch/y && cat /scratch/y";
    const options = [
      "-e",
      "A=1",
      "-e",
      "B=two words",
      "-w",
      "/etc",
      "-u",
      "65534:100",
      "-h",
      "box",
      "--tmpfs",
      "/scratch:mode=1777",
    ];
    const { stdout, stderr } = vmlet(["run", ...options, image, "sh", "-c", script]);
    assert.equal(text(stdout), "/etc\n65534\n100\nbox\n1-two words\nread-only\ny\n", text(stderr));
  });

  it("a file's capabilities and access list count, whoever runs it: the first time, kept, and held", () => {
    const words = ["run", "-u", "1000:100", image];
    const own = [...words, "busybox-capable", "grep", "CapEff", "/proc/self/status"];
    for (const how of ["started", "started and kept", "held"]) {
      const { stdout, stderr } = vmlet(own);
      assert.equal(text(stdout), "CapEff:\t0000000000000400\n", `${how}: ${text(stderr)}`);
    }
    const script =
      "busybox-capable httpd -p 127.0.0.1:80 && echo port; busybox httpd -p 127.0.0.1:81 2>/dev/null || echo none; cat /list";
    assert.equal(text(vmlet([...words, "sh", "-c", script]).stdout), "port\nnone\nfor one user\n");
    // Its group has nothing, although the mode has the mask in the group's place.
    assert.equal(vmlet(["run", "-u", "1001:100", image, "cat", "/list"]).status, 1);
  });

  it("a signal reaches the program, whose end is vmlet's", async () => {
    const script = "trap 'echo caught; exit 9' TERM; echo ready; while :; do sleep 1; done";
    const child = spawn(PROGRAM, ["run", image, "sh", "-c", script], { stdio: ["ignore", "pipe", "inherit"] });
    let output = "";
    child.stdout.on("data", (bytes: Buffer) => {
      output += bytes.toString();
      if (output === "ready\n") child.kill("SIGTERM");
    });
    const [code] = (await once(child, "close")) as [number];
    assert.equal(output, "ready\ncaught\n");
    assert.equal(code, 9);
  });

  it("a detached VM is listed, looked into, used, watched and ended by other commands", () => {
    const script = "echo begun; echo wrong >&2; while :; do sleep 1; done";
    const started = vmlet(["run", "-d", "--name", "web", "-l", "tier=front", image, "sh", "-c", script]);
    assert.equal(started.status, 0, text(started.stderr));
    const id = text(started.stdout).trim();
    try {
      assert.match(text(vmlet(["ps"]).stdout), new RegExp(`^${id} +.* web$`, "m"));
      const [record] = JSON.parse(text(vmlet(["inspect", "web"]).stdout)) as [Record<string, unknown>];
      assert.deepEqual([record["status"], record["labels"]], ["running", { tier: "front" }]);
      assert.equal(vmlet(["run", "--name", "web", image, "true"]).status, 125, "the name is taken");
      const listed = vmlet(["exec", "-e", "X=1", id.slice(0, 6), "sh", "-c", "echo $X; exit 3"]);
      assert.deepEqual([text(listed.stdout), listed.status], ["1\n", 3]);
      assert.equal(vmlet(["exec", "web", "nothing-like-it"]).status, 127);
      const input = randomBytes(100_000);
      assert.equal(sha256(vmlet(["exec", "-i", "web", "cat"], input).stdout), sha256(input));
      copies(folder, vmlet);
      const logged = vmlet(["logs", "web"]);
      assert.deepEqual([text(logged.stdout), text(logged.stderr)], ["begun\n", "wrong\n"]);
      assert.equal(vmlet(["stop", "-t", "1", "web"]).status, 0);
      assert.equal(text(vmlet(["wait", "web"]).stdout), "143\n");
      assert.match(text(vmlet(["ps", "-a"]).stdout), /Exited \(143\)/);
      assert.equal(vmlet(["exec", "web", "true"]).status, 125);
      assert.equal(text(vmlet(["logs", "-n", "1", "web"]).stderr), "wrong\n");
    } finally {
      vmlet(["rm", "-f", "web"]);
    }
    assert.deepEqual(state.list(), []);
  });

  it("one that is killed is put right by the next command, and with --rm nothing of it is left", async () => {
    for (const [name, flags] of [
      ["kept", []],
      ["gone", ["--rm"]],
    ] as const) {
      const { status, stderr } = vmlet(["run", "-d", "--name", name, ...flags, image, "sleep", "1000"]);
      assert.equal(status, 0, text(stderr));
      process.kill(state.find(name).owner.pid, "SIGKILL");
    }
    await new Promise((resolve) => setTimeout(resolve, 100));
    const rows = text(vmlet(["ps", "-a"]).stdout);
    assert.match(rows, /Exited \(137\).*kept/);
    assert.doesNotMatch(rows, /gone/);
    vmlet(["rm", "kept"]);
    assert.deepEqual(readdirSync(join(folder, "state", "names")), []);
  });

  it("from a program: exec is awaited, streamed and iterated; files; every method in every state", async () => {
    const vm = await Vm.start({ image, memoryMib: 512, env: { OWN: "1" } });
    try {
      const result = await vm.exec(["sh", "-c", "echo $OWN; cat >&2; exit 5"], { stdin: "in" });
      assert.deepEqual([result.stdout, result.stderr, result.exitCode, result.ok], ["1\n", "in", 5, false]);
      await assert.rejects(
        vm.exec(["sh", "-c", "exit 2"], { check: true }),
        (error: unknown) => error instanceof ExecError && error.exitCode === 2,
      );
      await assert.rejects(
        vm.exec(["nowhere"]),
        (error: unknown) => error instanceof ExecError && error.exitCode === 127,
      );
      await assert.rejects(vm.exec(["sleep", "100"], { timeoutMs: 300 }), /took longer than 300 ms/);
      const pieces: string[] = [];
      for await (const { output, data } of vm.exec(["sh", "-c", "echo a; sleep 0.2; echo b >&2"]))
        pieces.push(`${output} ${String(data)}`);
      assert.deepEqual(pieces, ["stdout a\n", "stderr b\n"]);
      const lines: string[] = [];
      for await (const line of vm.exec(["seq", "5"]).lines()) lines.push(line);
      assert.deepEqual(lines, ["1", "2", "3", "4", "5"]);
      const child = await vm.exec(["cat"]).process();
      child.stdin.end("through streams");
      assert.equal(Buffer.concat(await child.stdout.toArray()).toString(), "through streams");
      assert.deepEqual(await child.exit, { exitCode: 0, signal: null });
      await vm.files.write("/tmp/file", "content");
      assert.equal((await vm.files.read("/tmp/file")).toString(), "content");
      const all = await Promise.all(Array.from({ length: 20 }, (_, i) => vm.exec(["echo", String(i)])));
      assert.deepEqual(
        all.map(({ stdout }) => Number(stdout)),
        Array.from({ length: 20 }, (_, i) => i),
      );
      await vm.pause();
      await vm.resume();
      assert.ok(vm.stats().residentBytes > 0);
      const copy = await vm.clone();
      try {
        assert.equal((await copy.files.read("/tmp/file")).toString(), "content");
        await copy.files.write("/tmp/file", "another");
        assert.equal((await vm.files.read("/tmp/file")).toString(), "content");
        const random = (one: Vm) => one.exec(["head", "-c", "16", "/dev/urandom"]);
        assert.notEqual(sha256((await random(vm)).stdoutBytes), sha256((await random(copy)).stdoutBytes));
      } finally {
        await copy.close();
      }
      assert.equal(state.list().length, 1);
    } finally {
      await Promise.all([vm.close(), vm.close()]);
    }
    await vm.ended;
    assert.deepEqual(state.list(), []);
    assert.throws(() => vm.stats(), VmStateError);
    await assert.rejects(vm.pause(), VmStateError);
    await assert.rejects(vm.exec(["true"]), { code: "ERR_AGENT" });
    await vm.close();
  });

  it("from a program: a start that is given up leaves nothing, and so does a pool", async () => {
    const abort = new AbortController();
    setTimeout(() => {
      abort.abort(new Error("enough"));
    }, 50);
    await assert.rejects(Vm.start({ image, signal: abort.signal }), /enough/);
    const pool = new VmPool({ image }, { size: 1 });
    const vm = await pool.take();
    assert.equal((await vm.exec(["echo", "pooled"])).stdout, "pooled\n");
    await vm.close();
    await pool.close();
    await assert.rejects(pool.take(), VmStateError);
    assert.deepEqual(state.list(), []);
    // By now nothing has to be compiled. What the host does besides is not in the shortest of some.
    const blocks: number[] = [];
    const limitMs = longestBlockMs();
    while (blocks.length < 4 && !(Math.min(...blocks) < limitMs)) {
      let started: Vm | undefined;
      blocks.push(
        await longestBlock(async () => {
          started = await Vm.start({ image });
        }),
      );
      await started?.close();
    }
    assert.ok(Math.min(...blocks) < limitMs, `nobody on the event loop is held up: ${blocks.join(", ")} ms`);
  });
});

function sha256(bytes: Buffer): string {
  return createHash("sha256").update(bytes).digest("hex");
}

function makeImage(folder: string): string {
  const root = join(folder, "root");
  for (const name of ["bin", "etc", "scratch", "tmp"]) mkdirSync(join(root, name), { recursive: true });
  copyFileSync(BUSYBOX, join(root, "bin/busybox"));
  for (const name of APPLETS) symlinkSync("busybox", join(root, "bin", name));
  writeFileSync(join(root, "etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n");
  const image = join(folder, "image.tar");
  const { status } = spawnSync("tar", ["-C", root, "--owner=0", "--group=0", "-cf", image, "."]);
  assert.equal(status, 0);
  writeFileSync(image, Buffer.concat([withoutEnd(readFileSync(image)), tarOf(withAttributes())]));
  return image;
}

/** Of a tar, what comes before its blocks of zeroes. */
function withoutEnd(tar: Buffer): Buffer {
  let end = tar.length;
  while (tar.subarray(end - TAR_BLOCK, end).every((byte) => byte === 0)) end -= TAR_BLOCK;
  return tar.subarray(0, end);
}

/** linux/capability.h: VFS_CAP_REVISION_2, effective, CAP_NET_BIND_SERVICE. linux/posix_acl_xattr.h: user 1000 may read, no group. */
function withAttributes(): TarItem[] {
  const capable = Buffer.alloc(20);
  capable.writeUInt32LE(0x02000001, 0);
  capable.writeUInt32LE(1 << 10, 4);
  const entries = [
    [0x01, 6, -1],
    [0x02, 4, 1000],
    [0x04, 0, -1],
    [0x10, 4, -1],
    [0x20, 0, -1],
  ];
  const list = Buffer.alloc(4 + 8 * entries.length);
  list.writeUInt32LE(2, 0);
  for (const [i, [tag = 0, rights = 0, id = 0]] of entries.entries()) {
    list.writeUInt16LE(tag, 4 + 8 * i);
    list.writeUInt16LE(rights, 6 + 8 * i);
    list.writeInt32LE(id, 8 + 8 * i);
  }
  return [
    {
      name: "bin/busybox-capable",
      mode: 0o755,
      body: readFileSync(BUSYBOX),
      pax: { "SCHILY.xattr.security.capability": capable.toString("latin1") },
    },
    {
      name: "list",
      mode: 0o640,
      gid: 100,
      body: "for one user\n",
      pax: { "SCHILY.xattr.system.posix_acl_access": list.toString("latin1") },
    },
  ];
}

/** A file and a folder, both ways. */
function copies(
  folder: string,
  vmlet: (
    words: readonly string[],
    input?: string | Buffer,
  ) => { status: number | null; stdout: Buffer; stderr: Buffer },
): void {
  const bytes = randomBytes(200_000);
  const source = join(folder, "source");
  writeFileSync(source, bytes);
  assert.equal(vmlet(["cp", source, "web:/tmp/copied"]).status, 0);
  const back = join(folder, "back");
  assert.equal(vmlet(["cp", "web:/tmp/copied", back]).status, 0);
  assert.ok(readFileSync(back).equals(bytes));
  const archive = vmlet(["cp", "web:/etc", "-"]).stdout;
  assert.equal(vmlet(["cp", "-", "web:/tmp/unpacked"], archive).status, 0);
  assert.match(vmlet(["exec", "web", "cat", "/tmp/unpacked/etc/passwd"]).stdout.toString(), /^root:/);
}
