// Needs: a /dev/kvm of any kind that boots a guest. Guests that go on from a template.
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { timeLimit } from "../../vmm/host/time-limit.js";
import { countBoot } from "../helpers/booted.js";
import { whyNoKvm } from "../helpers/kvm-guard.js";
import { skipInJail } from "../helpers/jail-lane.js";
import { PROGRAM, start, type Ended } from "../helpers/program.js";
import { shareProblem } from "../helpers/share-guard.js";
import { skip } from "../helpers/skip.js";

const BOOT_LIMIT_MS = 400_000;

describe("boot: from a template", function () {
  this.timeout(2 * BOOT_LIMIT_MS);
  let folder = "";

  /** With a cache of its own: the first guest of a kind boots, the others go on. */
  async function run(options: readonly string[], command: readonly string[], input = ""): Promise<Ended> {
    const env = { ...process.env, VMLET_CACHE: join(folder, "cache") };
    const words = [PROGRAM, "boot", "--from-template", "--accel", "kvm", "--quiet", ...options, "--", ...command];
    const running = start(words, { env, stdio: ["pipe", "pipe", "pipe"] }, timeLimit("a boot", BOOT_LIMIT_MS));
    running.child.stdin?.on("error", () => undefined).end(input, "latin1");
    const ended = await running.ended;
    countBoot();
    return ended;
  }

  const templates = (): string[] =>
    readdirSync(join(folder, "cache", "templates")).filter((name) => /^[0-9a-f]+$/.test(name));

  before(function () {
    const reason = whyNoKvm();
    if (reason !== undefined) skip(this, reason);
    folder = mkdtempSync(join(tmpdir(), "vmlet-test-"));
  });
  after(() => {
    if (folder !== "") rmSync(folder, { recursive: true });
  });

  it("two that want the first one at once build it once, and no two are twins", async () => {
    const script = "head -c 16 /dev/urandom | od -An -tx1; date +%s; exit 7";
    const started = Date.now() / 1000;
    const ended = await Promise.all([1, 2].map(() => run([], ["sh", "-c", script])));
    assert.deepEqual(
      ended.map(({ status, stderr }) => [status, stderr]),
      [
        [7, ""],
        [7, ""],
      ],
    );
    const [first, second] = ended.map(({ stdout }) => stdout.trim().split("\n"));
    assert.notEqual(first?.[0], second?.[0]);
    for (const [, seconds] of [first ?? [], second ?? []]) {
      const isRight = Number(seconds) > started - 2 && Number(seconds) < Date.now() / 1000 + 2;
      assert.ok(isRight, `the guest's clock says ${String(seconds)}`);
    }
    assert.equal(templates().length, 1);
  });

  it("a command's words, its bytes and their ends are as in a guest that boots", async () => {
    const bytes = randomBytes(300_000).toString("latin1");
    const copied = await run([], ["cat"], bytes);
    assert.deepEqual([copied.status, copied.stderr, copied.stdout === bytes], [0, "", true]);
    const words = ["printf", "%s|", "a b", "", "\\", "\u{e9}", "x".repeat(5000)];
    assert.ok((await run([], words)).stdout === `a b||\\|\xc3\xa9|${"x".repeat(5000)}|`);
    assert.deepEqual(await run([], ["no-such-program"]), {
      status: 127,
      stdout: "",
      stderr: "init: cannot run no-such-program: not found\n",
    });
    const world = await run([], ["sh", "-c", "pwd; hostname; echo $HOSTNAME $HOME; tty; ulimit -n; kill -TERM $$"]);
    assert.equal(world.stdout, "/root\nvmlet\nvmlet /root\nnot a tty\n1024\n");
    assert.equal(world.status, 143);
    assert.equal((await run([], ["reboot", "-f"])).status, 100);
    assert.equal(templates().length, 1);
  });

  it("neither output waits for the reader of the other, and each is whole, the third time too", async () => {
    const script = "seq 1 60000 & seq 60001 130000 >&2; wait; exit 5";
    const lines = (from: number, to: number): string =>
      Array.from({ length: to - from + 1 }, (_, i) => `${String(from + i)}\n`).join("");
    for (const first of ["stdout", "stderr", "stderr"] as const) {
      const env = { ...process.env, VMLET_CACHE: join(folder, "cache") };
      const words = ["boot", "--from-template", "--accel", "kvm", "--quiet", "--", "sh", "-c", script];
      const child = spawn(PROGRAM, words, { env, stdio: ["ignore", "pipe", "pipe"], timeout: BOOT_LIMIT_MS });
      try {
        const ended = new Promise<number | null>((done) => child.once("close", done));
        const other = first === "stdout" ? "stderr" : "stdout";
        // The writer of the other stands still until this one has been read to its last line.
        const seen = { stdout: "", stderr: "" };
        const last = first === "stdout" ? "60000\n" : "130000\n";
        await new Promise<void>((done, failed) => {
          child.once("close", () => {
            failed(new Error(`ended: ${seen.stdout.slice(-100)} ${seen.stderr.slice(-100)}`));
          });
          child[first].setEncoding("latin1").on("data", (text: string) => {
            seen[first] += text;
            if (seen[first].endsWith(last)) done();
          });
        });
        child[other].setEncoding("latin1").on("data", (text: string) => (seen[other] += text));
        assert.equal(await ended, 5, seen.stderr.slice(-100));
        assert.ok(seen.stdout === lines(1, 60_000));
        assert.ok(seen.stderr === lines(60_001, 130_000));
      } finally {
        child.kill("SIGKILL");
      }
      countBoot();
    }
  });

  it("a command that comes again goes on behind its exec: its input, status and random bytes are its own", async function () {
    skipInJail(this, "a guest there keeps nothing for the next one of its command");
    const random = "$(od -An -tx8 -v /proc/$$/auxv | awk '/^ 0000000000000019/ {print $2}')";
    const script = `dd if=/proc/$$/mem bs=1 skip=$((0x${random})) count=16 2>/dev/null | od -An -tx1; head -c 16 /dev/urandom | od -An -tx1; cat; date +%s; exit 7`;
    const programs = (): string[][] => {
      const all = join(folder, "cache", "templates", `${templates()[0] ?? ""}.programs`);
      const names = readdirSync(all).filter((name) => !name.endsWith(".lock"));
      return names.map((name) => readdirSync(join(all, name)));
    };
    const whole = (all: readonly string[][]): number => all.filter((files) => files.includes("state.json")).length;
    const before = programs();
    const seen = new Set<string>();
    for (let time = 1; time <= 3; time++) {
      const { status, stdout, stderr } = await run([], ["sh", "-c", script], `input ${String(time)}\n`);
      const [own, kernels, input, seconds] = stdout.split("\n");
      assert.deepEqual([status, stderr, input], [7, "", `input ${String(time)}`], stdout);
      assert.ok(Math.abs(Number(seconds) - Date.now() / 1000) < 60, stdout);
      seen.add(own ?? "").add(kernels ?? "");
      assert.equal(seen.size, 2 * time, "no two guests have the same random bytes");
      assert.deepEqual(
        [programs().length - before.length, whole(programs()) - whole(before)],
        [1, time > 1 ? 1 : 0],
        "made the second time",
      );
    }
    // Its end is heard of before it is over.
    for (let time = 1; time <= 3; time++) {
      const killed = await run([], ["sh", "-c", "echo out; echo err >&2; kill -TERM $$"]);
      assert.deepEqual(killed, { status: 143, stdout: "out\n", stderr: "err\n" });
    }
  });

  it("the end of what a command reads comes as soon as that of one that writes meanwhile", async () => {
    const shortest = async (command: readonly string[], output: string): Promise<number> => {
      const times: number[] = [];
      // It is kept the second time.
      for (let time = 1; time <= 7; time++) {
        const startedMs = performance.now();
        assert.deepEqual(await run([], command, "one\n"), { status: 0, stdout: output, stderr: "" });
        if (time > 2) times.push(performance.now() - startedMs);
      }
      return Math.min(...times);
    };
    const [writes, waits] = [await shortest(["cat"], "one\n"), await shortest(["wc", "-l"], "1\n")];
    assert.ok(waits - writes < 600, `${String(waits)} ms, beside ${String(writes)}`);
  });

  it("who sits at a terminal gets a shell on it, and every key reaches it", async () => {
    const env = { ...process.env, VMLET_CACHE: join(folder, "cache"), TERM: "xterm" };
    const line = `stty rows 30 cols 90; ${PROGRAM} boot --from-template --accel kvm --quiet`;
    const running = start(["script", "-qec", line, "/dev/null"], { env, stdio: ["pipe", "pipe", "pipe"] }, 120_000);
    await running.until("~ #");
    running.child.stdin?.write("stty size; tty; echo $TERM; exit 3\n");
    const { status, stdout } = await running.ended;
    assert.match(stdout, /30 90\s+\/dev\/ttyS0\s+xterm\s/);
    assert.equal(status, 3);
    countBoot();
  });

  it("a program has guests of its own ready, each with its command, variables, folder and name", async () => {
    const program = `
      const { openTemplate } = require(${JSON.stringify(resolve("dist/index.js"))});
      (async () => {
        const kernel = process.argv[1];
        const template = await openTemplate({ kernel, initrd: "guest/out/initramfs.cpio", quiet: true });
        const pool = template.pool({ size: 2 });
        await pool.filled();
        const command = ["sh", "-c", "echo $WORD $(pwd) $(hostname) $HOSTNAME; cat; echo error >&2; exit 3"];
        const run = async (name) => {
          let output = "";
          let error = "";
          const host = {
            output: (bytes, done) => ((output += Buffer.from(bytes)), done()),
            commandError: (bytes, done) => ((error += Buffer.from(bytes)), setImmediate(done)),
          };
          const vm = pool.take(host, { command, env: { WORD: "word" }, folder: "/tmp", hostName: name });
          vm.commandInput(Buffer.from("input of " + name));
          vm.endCommandInput();
          const { exitStatus } = await vm.start();
          await vm.close();
          return [output, error, exitStatus];
        };
        const ran = await Promise.all(["one", "two", "three"].map(run));
        await pool.close();

        // Started already, made by two at once; with a pool of its own.
        const start = { command, env: { WORD: "word" }, folder: "/tmp" };
        const [program, same] = await Promise.all([template.program(start), template.program(start)]);
        const started = program.pool({ size: 2 });
        await started.filled();
        const goOn = async (make, name) => {
          let output = "";
          const vm = make({ output: (bytes, done) => ((output += Buffer.from(bytes)), done()) });
          vm.commandInput(Buffer.from("input of " + name));
          vm.endCommandInput();
          const { exitStatus } = await vm.start();
          await vm.close();
          return [output, exitStatus];
        };
        const went = [
          await goOn((host) => started.take(host), "four"),
          await goOn((host) => same.restore(host, { hostName: "five" }), "five"),
        ];
        await started.close();
        const ids = program.id === same.id;
        for (const one of [program, same]) one.close();
        const refused = await template.program({ command: ["no-such-program"] }).catch((error) => [error.name, error.message]);

        // A VM that cannot be told what it is to do is closed.
        const host = { output: (bytes, done) => done() };
        const long = { command: ["echo", "x".repeat(200_000)] };
        const late = template.pool({ size: 1 });
        await late.filled();
        const tooLong = [() => template.restore(host, long), () => late.take(host, long)].map((make) => {
          try {
            make();
          } catch (error) {
            return error.message;
          }
        });
        await late.close();
        template.close();
        const fs = require("node:fs");
        const vms = () => fs.readdirSync("/proc/self/fd").filter((fd) => {
          try { return fs.readlinkSync("/proc/self/fd/" + fd).includes("kvm-"); } catch { return false; }
        }).length;
        for (let tries = 0; vms() > 0 && tries < 100; tries++) await new Promise((done) => setTimeout(done, 50));
        console.log(JSON.stringify({ ran, went, ids, refused, tooLong, vms: vms() }));
      })();`;
    const env = { ...process.env, VMLET_CACHE: join(folder, "cache") };
    const kernel = existsSync("guest/out/fast/vmlinux") ? "guest/out/fast/vmlinux" : "guest/out/default/vmlinux";
    const limitMs = timeLimit("a boot", BOOT_LIMIT_MS);
    const { status, stdout, stderr } = await start([process.execPath, "-e", program, kernel], { env }, limitMs).ended;
    assert.deepEqual([status, stderr], [0, ""]);
    const tooLong = "The command and its variables are longer than 128 KiB";
    assert.deepEqual(JSON.parse(stdout), {
      ran: ["one", "two", "three"].map((name) => [`word /tmp ${name} ${name}\ninput of ${name}`, "error\n", 3]),
      // The variable is of the program's start; who does not take standard error apart gets it behind the rest.
      went: [
        ["word /tmp vmlet vmlet\ninput of fourerror\n", 3],
        ["word /tmp five vmlet\ninput of fiveerror\n", 3],
      ],
      ids: true,
      refused: [
        "SnapshotError",
        'The guest has not started "no-such-program": init: cannot run no-such-program: not found',
      ],
      tooLong: [tooLong, tooLong],
      vms: 0,
    });
    countBoot();
  });

  it("a signal while the template boots ends it, and leaves no socket and no half of a template", async () => {
    const socket = join(folder, "early.sock");
    const env = { ...process.env, VMLET_CACHE: join(folder, "other-cache") };
    const words = [PROGRAM, "boot", "--from-template", "--accel", "kvm", "--vsock", `cid=5,path=${socket}`];
    const running = start([...words, "--", "true"], { env, stdio: ["ignore", "pipe", "pipe"] }, BOOT_LIMIT_MS);
    while (!existsSync(socket) && running.child.exitCode === null) await new Promise((done) => setTimeout(done, 20));
    running.child.kill("SIGTERM");
    const { status, stderr } = await running.ended;
    assert.equal(status, 143, stderr);
    assert.match(stderr, /there is no template of this guest yet: it boots, once/);
    const left = readdirSync(join(folder, "other-cache", "templates")).filter((name) => !name.endsWith(".lock"));
    assert.deepEqual([existsSync(socket), left], [false, []]);
  });

  it("devices are of this guest, and its own hook hears of each before its command does anything; what a template cannot have is refused; a damaged one is made again", async () => {
    const tree = join(folder, "tree");
    mkdirSync(join(tree, "etc/vmlet"), { recursive: true });
    writeFileSync(join(tree, "etc/vmlet/restored"), "#!/bin/sh\necho generation $VMLET_GENERATION >/tmp/heard\n", {
      mode: 0o755,
    });
    const initrd = join(folder, "hooked.cpio");
    const packed = execFileSync("cpio", ["--quiet", "-o", "-H", "newc"], {
      cwd: tree,
      input: "etc\netc/vmlet\netc/vmlet/restored\n",
    });
    writeFileSync(initrd, Buffer.concat([readFileSync("guest/out/initramfs.cpio"), packed]));
    const known = templates();
    const before = known.length;
    const disk = join(folder, "disk");
    writeFileSync(disk, "first words");
    truncateSync(disk, 1 << 20);
    const writable = await run(["--disk", `path=${disk}`], ["true"]);
    assert.equal(writable.status, 65);
    assert.match(writable.stderr, /disk: the guest may write to it/);
    const devices = ["--disk", `path=${disk},readonly`, "--rng", "--vsock", `cid=5,path=${join(folder, "vsock")}`];
    const options = ["--initrd", initrd, ...devices];
    // The next one has the device anew, and its socket was not left behind; from the second on, it goes on behind its exec.
    const hasShares = shareProblem() === undefined;
    const mount = hasShares ? "mkdir /s && mount -t virtiofs share0 /s && cp /s/file /s/copy && cat /s/copy; " : "";
    const words = `${mount}head -c 11 /dev/vda; head -c 8 /dev/hwrng | wc -c; cat /tmp/heard`;
    const command = ["sh", "-c", words];
    const heard = new Set<string>();
    for (let time = 1; time <= 3; time++) {
      const shared = join(folder, `shared-${String(time)}`);
      mkdirSync(shared);
      writeFileSync(join(shared, "file"), `of ${String(time)}, `);
      const { status, stdout, stderr } = await run([...options, ...(hasShares ? ["--share", shared] : [])], command);
      const [line, generation = "", ...rest] = stdout.split("\n");
      const first = hasShares ? `of ${String(time)}, ` : "";
      assert.deepEqual([status, stderr, line, rest], [0, "", `${first}first words8`, [""]], stdout);
      if (hasShares) assert.equal(readFileSync(join(shared, "copy"), "utf8"), first);
      assert.match(generation, /^generation [\da-f]{8}$/);
      heard.add(generation);
    }
    assert.equal(heard.size, 3, [...heard].join(" "));
    const [made] = templates().filter((name) => !known.includes(name));
    for (const name of readdirSync(join(folder, "cache", "templates", made ?? ""))) {
      truncateSync(join(folder, "cache", "templates", made ?? "", name), 100);
    }
    if (hasShares) options.push("--share", folder);
    assert.equal((await run(options, ["echo", "again"])).stdout, "again\n");
    assert.equal(templates().length, before + 1);
  });
});
