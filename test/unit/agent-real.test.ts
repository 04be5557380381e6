// Needs: gcc. Commands and files through the guest's real agent, as a process of this host.
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import type { ExecError } from "../../vmm/errors.js";
import type { Agent } from "../../vmm/agent/agent.js";
import { collectGarbage } from "../../bench/system/garbage.js";
import { AgentProgram, type RealAgent } from "../helpers/real-agent.js";
import { skip } from "../helpers/skip.js";

const MIB = 2 ** 20;
/** Between two looks at what is held: each collects what is not. */
const LOOK_BYTES = 4 * MIB;

describe("agent, the real one", () => {
  const program = new AgentProgram();
  let running: RealAgent;
  let folder = "";
  const agent = (): Agent => running.agent;

  before(function () {
    const problem = program.build();
    if (problem !== undefined) skip(this, problem);
    running = program.start();
    folder = mkdtempSync(join(tmpdir(), "agent-real-"));
  });

  after(async () => {
    await program.close();
    if (folder !== "") rmSync(folder, { recursive: true, force: true });
  });

  it("both outputs arrive apart and whole, and the exit code is the command's", async () => {
    const result = await agent().run(["sh", "-c", "echo out; echo err >&2; exit 3"]);
    assert.deepEqual(
      [result.stdout, result.stderr, result.exitCode, result.signal, result.ok, result.truncated],
      ["out\n", "err\n", 3, null, false, false],
    );
  });

  it("every byte of the input arrives, then its end: text, bytes, streams, nothing", async () => {
    const bytes = Buffer.from(Array.from({ length: 256 }, (_, index) => index));
    const long = Buffer.alloc(100_000, "x");
    for (const input of [bytes, Buffer.concat([long, Buffer.from("\n\x04\x03\x1a")]), Buffer.alloc(0)]) {
      const result = await agent().run(["cat"], { stdin: input });
      assert.ok(result.stdoutBytes.equals(input));
    }
    assert.equal((await agent().run(["cat"], { stdin: "ünïcode" })).stdout, "ünïcode");
    assert.equal((await agent().run(["cat"], { stdin: Readable.from(["a", Buffer.from("b"), "c"]) })).stdout, "abc");
    assert.equal((await agent().run(["cat"])).stdout, "");
    assert.equal((await agent().run(["wc", "-c"], { stdin: "" })).stdout.trim(), "0");
  });

  it("64 MiB through standard input and output have the same hash, and take no memory", async () => {
    const block = randomBytes(MIB);
    const hash = createHash("sha256");
    const input = function* (): Generator<Buffer> {
      for (let i = 0; i < 64; i++) {
        block.writeUInt32LE(i, 0);
        const copy = Buffer.from(block);
        hash.update(copy);
        yield copy;
      }
    };
    const before = arrayBuffersInUse();
    let most = 0;
    const process_ = await agent().exec(["cat"]);
    const back = createHash("sha256");
    let length = 0;
    const writing = pipeline(Readable.from(input()), process_.stdin);
    for await (const chunk of process_.stdout) {
      back.update(chunk as Buffer);
      const looked = Math.floor(length / LOOK_BYTES);
      length += (chunk as Buffer).length;
      if (Math.floor(length / LOOK_BYTES) > looked) most = Math.max(most, arrayBuffersInUse() - before);
    }
    await writing;
    assert.equal(length, 64 * MIB);
    assert.equal(back.digest("hex"), hash.digest("hex"));
    assert.deepEqual(await process_.exit, { exitCode: 0, signal: null });
    assert.ok(most < 16 * MIB, `${String(most)} bytes were held`);
  });

  it("a reader that is slow stops the writer, and gets all", async () => {
    const process_ = await agent().exec(["head", "-c", String(2 * MIB), "/dev/zero"]);
    await new Promise((resolve) => setTimeout(resolve, 50));
    let length = 0;
    for await (const chunk of process_.stdout) length += (chunk as Buffer).length;
    assert.equal(length, 2 * MIB);
    assert.equal((await process_.exit).exitCode, 0);
  });

  it("output that is not wanted is dropped; a reader that has gone does not stop the command", async () => {
    const result = await agent().run(["head", "-c", String(MIB), "/dev/zero"], { maxOutputBytes: 1000 });
    assert.deepEqual([result.stdoutBytes.length, result.truncated, result.exitCode], [1000, true, 0]);
    const process_ = await agent().exec(["head", "-c", String(MIB), "/dev/zero"]);
    process_.stdout.destroy();
    assert.equal((await process_.exit).exitCode, 0);
  });

  it("a command that reads no more ends with its exit code, whatever is still to be written", async () => {
    const result = await agent().run(["head", "-c", "3"], { stdin: Buffer.alloc(5 * MIB, "y") });
    assert.deepEqual([result.stdout, result.exitCode], ["yyy", 0]);
    const process_ = await agent().exec(["true"]);
    await process_.exit;
    process_.stdin.write("late");
    process_.stdin.end();
    process_.kill();
    process_.cancel();
  });

  it("what cannot be run is an error with the status of a shell", async () => {
    const text = join(folder, "no-program");
    writeFileSync(text, "\x7fELFnone");
    for (const [command, exitCode, errnoName] of [
      ["no-such-program", 127, "ENOENT"],
      ["/no/such/program", 127, "ENOENT"],
      [folder, 126, "EACCES"],
      [text, 126, "EACCES"],
    ] as const) {
      for (const start of [() => agent().run([command]), () => agent().exec([command])]) {
        await assert.rejects(start(), { code: "ERR_EXEC", exitCode, errnoName, command: [command] }, command);
      }
    }
    await assert.rejects(agent().run(["true"], { cwd: "/no/such/folder" }), { code: "ERR_EXEC" });
    await assert.rejects(agent().run(["true"], { user: "no-such-user" }), { code: "ERR_EXEC" });
  });

  it("options that make no sense are refused before anything is sent, all at once", async () => {
    await assert.rejects(agent().run([]), { code: "ERR_CONFIG", message: /empty/ });
    await assert.rejects(agent().run(["a\0b"]), { code: "ERR_CONFIG", message: /NUL/ });
    await assert.rejects(agent().run(["true"], { timeoutMs: 2 ** 31 }), {
      code: "ERR_CONFIG",
      message: /2147483648 .* 2147483647/,
    });
    await assert.rejects(
      agent().run(["true"], { env: { "A=B": "c" }, groups: [-1], limits: { nofile: { soft: 2, hard: 1 } } }),
      (error: ExecError) => {
        assert.equal(error.message.split("\n").length, 3);
        return true;
      },
    );
    await assert.rejects(agent().run(["x".repeat(70_000)]), { code: "ERR_CONFIG", message: /the limit is 65536/ });
  });

  it("environment, folder, user, groups and limits are what was asked for", async () => {
    const run = async (script: string, options: Parameters<Agent["run"]>[1] = {}): Promise<string> =>
      (await agent().run(["sh", "-c", script], { check: true, ...options })).stdout.trim();
    assert.equal(await run("echo $A-$B", { env: { A: "1", B: undefined } }), "1-");
    assert.equal(await run("env | grep -v PWD | grep -v _= | grep -v SHLVL", { env: ["A=1"], cleanEnv: true }), "A=1");
    assert.equal(await run("pwd", { cwd: folder }), folder);
    assert.equal(await run("pwd", { cwd: join(folder, "made/there"), makeCwd: true }), join(folder, "made/there"));
    assert.equal(await run("ulimit -Sn; ulimit -Hn", { limits: { nofile: { soft: 100, hard: 200 } } }), "100\n200");
    if (process.getuid?.() !== 0) return;
    assert.equal(await run("id -u; id -g; id -G", { user: "65534:65533", groups: [7, 8] }), "65534\n65533\n65533 7 8");
    assert.equal(await run("echo $HOME; id -un", { user: "nobody" }), "/nonexistent\nnobody");
  });

  it("a terminal has a size that changes, and control characters are keys", async () => {
    const process_ = await agent().exec(
      ["sh", "-c", "trap 'stty size; exit 5' WINCH; stty size; while :; do sleep 0.05; done"],
      {
        terminal: { rows: 30, columns: 100 },
      },
    );
    const lines: string[] = [];
    for await (const line of process_.lines()) {
      lines.push(line);
      if (lines.length === 1) process_.resize(40, 120);
    }
    assert.deepEqual(lines, ["30 100", "40 120"]);
    assert.equal((await process_.exit).exitCode, 5);
    const sleeper = await agent().exec(["sleep", "100"], { terminal: true });
    sleeper.stdin.write("\x03");
    assert.deepEqual(await sleeper.exit, { exitCode: 130, signal: "SIGINT" });
    const cat = await agent().exec(["cat"], { terminal: true });
    cat.stdin.end("typed\n");
    let text = "";
    for await (const { data } of cat) text += data.toString();
    assert.equal(text, "typed\r\ntyped\r\n");
    assert.equal((await cat.exit).exitCode, 0);
  });

  it("signals go to the process or to its group; the end by a signal has its name", async () => {
    const one = await agent().exec(["sleep", "100"]);
    one.kill("TERM");
    assert.deepEqual(await one.exit, { exitCode: 143, signal: "SIGTERM" });
    const trap = await agent().exec(["sh", "-c", "trap 'exit 7' USR1; echo ready; while :; do sleep 0.02; done"]);
    for await (const line of trap.lines()) if (line === "ready") trap.kill("SIGUSR1");
    assert.equal((await trap.exit).exitCode, 7);
    const group = await agent().exec(["sh", "-c", "sleep 100; true"]);
    group.kill(9, { group: true });
    assert.deepEqual(await group.exit, { exitCode: 137, signal: "SIGKILL" });
    assert.throws(
      () => {
        group.kill("SIGNONE");
      },
      { code: "ERR_CONFIG" },
    );
  });

  it("time limits and AbortSignals kill the command with its children, and say what it had written", async () => {
    const started = performance.now();
    const script = ["sh", "-c", "echo before; sleep 100 & sleep 100"];
    await assert.rejects(agent().run(script, { timeoutMs: 200 }), (error: ExecError) => {
      assert.deepEqual(
        [error.code, error.isTimeout, error.stdout, error.exitCode],
        ["ERR_EXEC", true, "before\n", 137],
      );
      return true;
    });
    const controller = new AbortController();
    const run = agent().run(script, { signal: controller.signal });
    const process_ = await agent().exec(script, { signal: controller.signal });
    controller.abort(new Error("enough"));
    await assert.rejects(run, /enough/);
    await assert.rejects(process_.exit, /enough/);
    await assert.rejects(agent().run(script, { signal: controller.signal }), /enough/);
    await assert.rejects(agent().exec(script, { signal: controller.signal }), /enough/);
    assert.ok(performance.now() - started < 10_000);
    assert.equal(running.connection.streamCount, 0);
  });

  it("`check` makes a failure an error with the last line of standard error", async () => {
    await assert.rejects(agent().run(["sh", "-c", "echo a >&2; echo why >&2; exit 4"], { check: true }), {
      code: "ERR_EXEC",
      exitCode: 4,
      message: "sh exited with 4: why",
      stderr: "a\nwhy\n",
    });
    await agent().run(["true"], { check: true });
  });

  it("300 commands at once, some more than there are streams, all end with their own output", async () => {
    const results = await Promise.all(
      Array.from({ length: 300 }, (_, index) =>
        agent().run(["sh", "-c", `cat; echo ${String(index)} >&2; exit ${String(index % 256)}`], {
          stdin: `in ${String(index)}`,
        }),
      ),
    );
    for (const [index, { stdout, stderr, exitCode }] of results.entries()) {
      assert.deepEqual([stdout, stderr, exitCode], [`in ${String(index)}`, `${String(index)}\n`, index % 256]);
    }
    assert.equal(running.connection.streamCount, 0);
  });

  it("merged output has the order in which it was written", async () => {
    const { stdout, stderr } = await agent().run(["sh", "-c", "echo 1; echo 2 >&2; echo 3"], { mergeOutput: true });
    assert.deepEqual([stdout, stderr], ["1\n2\n3\n", ""]);
  });

  it("iterating gives the pieces of both outputs; leaving early lets the command end", async () => {
    const process_ = await agent().exec(["sh", "-c", "echo out; echo err >&2"]);
    const seen = { stdout: "", stderr: "" };
    for await (const { output, data } of process_) seen[output] += data.toString();
    assert.deepEqual(seen, { stdout: "out\n", stderr: "err\n" });
    const yes = await agent().exec(["yes"]);
    for await (const { data } of yes) {
      assert.ok(data.length > 0);
      break;
    }
    yes.kill();
    assert.equal((await yes.exit).signal, "SIGTERM");
  });

  it("files: written, read, appended, cut, renamed, linked, listed and removed", async () => {
    const { files } = agent();
    const at = (name: string): string => join(folder, name);
    const bytes = randomBytes(300_000);
    await files.write(at("a"), bytes, { mode: 0o640 });
    assert.ok((await files.read(at("a"))).equals(bytes));
    assert.ok(readFileSync(at("a")).equals(bytes));
    assert.ok((await files.read(at("a"), { offset: 100, length: 200_000 })).equals(bytes.subarray(100, 200_100)));
    await files.write(at("a"), "end", { append: true });
    assert.equal(statSync(at("a")).size, 300_003);
    await files.write(at("a"), "XY", { offset: 1 });
    assert.equal(readFileSync(at("a"))[1], 0x58);
    await files.setAttributes(at("a"), {
      size: 5,
      mode: 0o600,
      times: { atime: 1n, mtime: 1_600_000_000_123_456_789n },
    });
    const stat = await files.stat(at("a"));
    assert.deepEqual([stat.type, stat.size, stat.mode, stat.mtimeNs], ["file", 5, 0o600, 1_600_000_000_123_456_789n]);
    await files.rename(at("a"), at("b"));
    assert.deepEqual([await files.exists(at("a")), await files.exists(at("b"))], [false, true]);
    await files.link(at("b"), at("hard"));
    await files.symlink("b", at("soft"));
    assert.equal(await files.readlink(at("soft")), "b");
    assert.deepEqual(
      [(await files.lstat(at("soft"))).type, (await files.stat(at("soft"))).type, (await files.stat(at("hard"))).nlink],
      ["symlink", "file", 2],
    );
    await files.mkdir(at("deep/er"), { parents: true });
    const names = (await files.list(folder)).map(({ name }) => name);
    assert.ok(names.includes("deep") && names.includes("soft"));
    assert.equal((await files.list(folder)).find(({ name }) => name === "soft")?.target?.toString(), "b");
    await pipeline(Readable.from([bytes, bytes]), files.writeStream(at("stream")));
    const hash = createHash("sha256");
    for await (const chunk of files.readStream(at("stream"))) hash.update(chunk as Buffer);
    assert.equal(hash.digest("hex"), createHash("sha256").update(bytes).update(bytes).digest("hex"));
    await assert.rejects(files.remove(at("deep")), { code: "ERR_GUEST_REQUEST", errnoName: "ENOTEMPTY" });
    symlinkSync(folder, at("deep/up"));
    await files.remove(at("deep"), { tree: true });
    await files.remove(at("deep"), { force: true });
    assert.ok(await files.exists(at("b")));
  });

  it("files: refusals have the guest's errno; no stream is left", async () => {
    const { files } = agent();
    const missing = join(folder, "missing");
    mkdirSync(join(folder, "folder"));
    await assert.rejects(files.read(missing), {
      code: "ERR_GUEST_REQUEST",
      errnoName: "ENOENT",
      request: `read ${missing}`,
    });
    await assert.rejects(files.read(join(folder, "folder")), { errnoName: "EISDIR" });
    await assert.rejects(files.list(missing), { errnoName: "ENOENT" });
    await assert.rejects(files.write(join(missing, "x"), Buffer.alloc(MIB)), { errnoName: "ENOENT" });
    await assert.rejects(files.mkdir(folder), { errnoName: "EEXIST" });
    await assert.rejects(files.readlink(folder), { errnoName: "EINVAL" });
    await assert.rejects(files.read("relative"), { code: "ERR_CONFIG", message: /absolute/ });
    await assert.rejects(files.read("/a\0b"), { code: "ERR_CONFIG", message: /NUL/ });
    await assert.rejects(files.read(`/${"x".repeat(5000)}`), {
      code: "ERR_CONFIG",
      message: /5001 bytes, the limit is 4095/,
    });
    await assert.rejects(files.read("/dev/zero", { maxBytes: 100_000 }), { code: "ERR_CONFIG", message: /100000/ });
    await assert.rejects(
      pipeline(files.readStream(missing), async function (source) {
        for await (const chunk of source) assert.ok(chunk);
      }),
      { errnoName: "ENOENT" },
    );
    await assert.rejects(pipeline(Readable.from(["x"]), files.writeStream(join(missing, "x"))), {
      errnoName: "ENOENT",
    });
    const endless = files.readStream("/dev/zero");
    for await (const chunk of endless) {
      assert.ok(chunk);
      break;
    }
    const broken = Readable.from(
      (function* (): Generator<string> {
        yield "x";
        throw new Error("source");
      })(),
    );
    await assert.rejects(files.write(join(folder, "broken"), broken), /source/);
    while (running.connection.streamCount > 0) await new Promise((resolve) => setTimeout(resolve, 5));
  });

  it("names of any bytes are kept", async () => {
    const { files } = agent();
    const name = Buffer.from([0xff, 0x0a, 0x80]);
    const path = Buffer.concat([Buffer.from(`${folder}/`), name]);
    await files.write(path, "odd");
    assert.equal((await files.read(path)).toString(), "odd");
    const entry = (await files.list(folder)).find(({ nameBytes }) => nameBytes.equals(name));
    assert.equal(entry?.size, 3);
  });

  it("the guest itself: ports, processes, memory, sync", async () => {
    const { guest } = agent();
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const { port } = server.address() as { port: number };
    await guest.waitForPort(port);
    await new Promise((resolve) => server.close(resolve));
    await assert.rejects(guest.waitForPort(port, { timeoutMs: 50 }), {
      code: "ERR_GUEST_REQUEST",
      errnoName: "ETIMEDOUT",
      message: `wait for port ${String(port)}: nobody listens there after 50 ms`,
    });
    const abort = new AbortController();
    const waiting = guest.waitForPort(port, { timeoutMs: 60_000, signal: abort.signal });
    abort.abort(new Error("enough"));
    await assert.rejects(waiting, /^Error: enough$/);
    const own = (await guest.processes()).find(({ pid }) => pid === process.pid);
    assert.equal(own?.parent, process.ppid);
    assert.ok(own.residentBytes > 10 * MIB);
    const memory = await guest.memory();
    assert.ok(memory.totalBytes > memory.freeBytes && memory.freeBytes > 0);
    await guest.sync();
    assert.ok((await running.connection.ping()) < 5000);
  });

  it("the end of the agent is the end of all that is under way", async () => {
    const other = program.start();
    const run = other.agent.run(["sleep", "100"]);
    const process_ = await other.agent.exec(["sleep", "100"]);
    other.child.kill("SIGKILL");
    await assert.rejects(run, { code: "ERR_AGENT", reason: "gone" });
    await assert.rejects(process_.exit, { code: "ERR_AGENT", reason: "gone" });
    await assert.rejects(other.agent.files.stat("/"), { code: "ERR_AGENT", reason: "gone" });
    await program.stop(other);
  });
});

/** `bytes`, without those that nobody holds any more. */
function arrayBuffersInUse(): number {
  collectGarbage();
  return process.memoryUsage().arrayBuffers;
}
