// Needs: gcc. The guest's agent as a process of this host: commands.
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  AgentProcess,
  CANCEL,
  CLOSED,
  CREDIT,
  DATA,
  DATA2,
  DONE,
  END,
  EXEC,
  FAILED,
  HELLO,
  PING,
  PONG,
  RESIZE,
  SIGNAL,
  STARTED,
  buildAgent,
  credit,
  exec,
  frame,
  pack,
} from "../helpers/agent-process.js";

const WINDOW = 524_288;
const FRAME = 65_536;
const TERMINAL = 1;
const NO_INPUT = 2;
const MERGED = 4;
const CLEAN = 8;
const HOLD = 16;
const MAKE_FOLDER = 32;

/** Exit code and signal. */
const ended = (last: Buffer): number[] => [last.readUInt32LE(0), last.readUInt32LE(4)];
const failure = (last: Buffer): [number, string] => [last.readUInt32LE(0), last.subarray(4).toString()];
const sha = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");

describe("guest: the agent and its commands", () => {
  let folder = "";
  let path = "";
  let agent: AgentProcess;

  before(function () {
    this.timeout(120_000);
    folder = mkdtempSync(join(tmpdir(), "vmlet-test-"));
    path = buildAgent(folder);
  });
  after(() => {
    rmSync(folder, { recursive: true });
  });
  beforeEach(async () => {
    agent = await new AgentProcess(path).begin();
  });
  afterEach(async () => {
    const status = await agent.close();
    assert.equal(status, 0);
  });

  /** It still serves, on the same connection. */
  async function pings(): Promise<void> {
    agent.send(0, PING, Buffer.from("still there"));
    const pong = await agent.nextBut(CREDIT);
    assert.deepEqual([pong.type, pong.payload.toString()], [PONG, "still there"]);
  }

  function sendAll(bytes: Buffer): void {
    for (let at = 0; at < bytes.length; at += FRAME) agent.send(1, DATA, bytes.subarray(at, at + FRAME));
    agent.send(1, END);
  }

  it("a command's words, its bytes and its status are exact, and its ends come in order", async () => {
    const words = ["printf", "%s|", "a b", "", "\\", "\xe9\xff", "x".repeat(5000)];
    const printed = await agent.run(words);
    assert.equal(printed.output.toString("latin1"), `a b||\\|\xe9\xff|${"x".repeat(5000)}|`);
    const apart = await agent.run(["sh", "-c", "echo out; echo err >&2; exit 7"], { flags: NO_INPUT });
    assert.deepEqual([apart.output.toString(), apart.error.toString(), ended(apart.last)], ["out\n", "err\n", [7, 0]]);
    assert.deepEqual(apart.types[0], STARTED);
    assert.deepEqual(apart.types.slice(-1), [DONE]);
    assert.equal(apart.types.filter((type) => type === END).length, 2);
    const killed = await agent.run(["sh", "-c", "kill -9 $$"]);
    assert.deepEqual(ended(killed.last), [0, 9]);
    const merged = await agent.run(["sh", "-c", "echo a; echo b >&2; echo c"], { flags: MERGED });
    assert.deepEqual([merged.output.toString(), merged.error.length], ["a\nb\nc\n", 0]);
  });

  it("64 MiB of any bytes go in and come out, within the windows of both", async () => {
    const bytes = randomBytes(64 << 20);
    agent.send(1, EXEC, exec(["cat"]));
    let sent = 0;
    let allowed = WINDOW;
    const hash = createHash("sha256");
    for (let length = 0; ;) {
      const count = Math.min(allowed, bytes.length - sent, 50_001);
      if (count > 0) {
        agent.send(1, DATA, bytes.subarray(sent, sent + count));
        sent += count;
        allowed -= count;
        if (sent === bytes.length) agent.send(1, END);
        continue;
      }
      const { type, payload } = await agent.next();
      if (type === CREDIT) {
        assert.equal(payload[0], 1);
        allowed += payload.readUInt32LE(4);
        assert.ok(allowed <= WINDOW, "more credit than there is window");
      } else if (type === DATA) {
        hash.update(payload);
        length += payload.length;
        agent.send(1, CREDIT, credit(1, payload.length));
      } else if (type === DONE) {
        assert.deepEqual([ended(payload), length], [[0, 0], bytes.length]);
        break;
      }
    }
    assert.equal(hash.digest("hex"), sha(bytes));
  });

  it("without credit no more than a window comes, and the rest waits in the command", async () => {
    agent.send(1, EXEC, exec(["sh", "-c", "head -c 2000000 /dev/zero; echo end >&2"]));
    assert.equal((await agent.next()).type, STARTED);
    let length = 0;
    while (length < WINDOW) {
      const { type, payload } = await agent.next();
      if (type === DATA) length += payload.length;
    }
    assert.equal(length, WINDOW);
    assert.equal(await agent.silence(), 0);
    await pings();
    agent.send(1, CREDIT, credit(1, 7));
    assert.equal((await agent.next()).payload.length, 7);
    agent.send(1, CREDIT, credit(1, WINDOW));
    let [rest, error] = [0, ""];
    for (let type = 0; type !== DONE;) {
      const next = await agent.next();
      type = next.type;
      if (type === DATA2) error += next.payload.toString();
      if (type !== DATA) continue;
      rest += next.payload.length;
      agent.send(1, CREDIT, credit(1, next.payload.length));
    }
    assert.deepEqual([rest, error], [2_000_000 - WINDOW - 7, "end\n"]);
  });

  it("a command that does not read holds a window of input, and gets all of it when it does", async () => {
    const bytes = randomBytes(WINDOW);
    agent.send(1, EXEC, exec(["sh", "-c", "read line; sha256sum"]));
    assert.equal((await agent.next()).type, STARTED);
    const first = Buffer.concat([Buffer.from("go\n"), bytes.subarray(3)]);
    sendAll(first);
    const { output } = await agent.finish(1);
    assert.equal(output.toString().slice(0, 64), sha(first.subarray(3)));
    agent.send(1, EXEC, exec(["sleep", "60"]));
    sendAll(bytes);
    assert.equal((await agent.nextBut(CREDIT)).type, STARTED);
    await pings();
    agent.send(1, CANCEL);
    assert.deepEqual(ended((await agent.finish(1)).last), [0, 9]);
  });

  it("who closes its input is told of by CLOSED, and what still comes is dropped", async () => {
    agent.send(1, EXEC, exec(["sh", "-c", "exec <&-; sleep 0.3; echo done"]));
    assert.equal((await agent.next()).type, STARTED);
    assert.equal((await agent.next()).type, CLOSED);
    agent.send(1, DATA, Buffer.from("nobody"));
    const { output, last } = await agent.finish(1);
    assert.deepEqual([output.toString(), ended(last)], ["done\n", [0, 0]]);
  });

  it("what its children write later is not waited for", async () => {
    const { output, last } = await agent.run(["sh", "-c", "(sleep 30; echo late) & echo now"]);
    assert.deepEqual([output.toString(), ended(last)], ["now\n", [0, 0]]);
    const endless = await agent.run(["sh", "-c", "yes & echo $!; exit 4"]);
    assert.deepEqual(ended(endless.last), [4, 0]);
  });

  it("what cannot be run fails with the reason", async () => {
    const reasons: [string[], number, string][] = [
      [["no-such-program"], 2, "cannot run no-such-program: not found"],
      [["/no/such/path"], 2, "cannot run /no/such/path: not found"],
      [["/tmp"], 13, "cannot run /tmp: is a directory"],
      [["/etc/passwd"], 13, "cannot run /etc/passwd: permission denied"],
    ];
    for (const [command, errno, text] of reasons) {
      const { types, last } = await agent.run(command);
      assert.deepEqual([types, failure(last)], [[FAILED], [errno, text]]);
    }
    const place = await agent.run(["true"], { folder: "/no/such/folder" });
    assert.deepEqual(failure(place.last), [20, "the working directory is not there: /no/such/folder"]);
    const user = await agent.run(["true"], { user: "no-such-user" });
    assert.deepEqual(failure(user.last), [22, "no such user or group in the guest: no-such-user"]);
    const held = await agent.run(["true"], { flags: HOLD });
    assert.equal(failure(held.last)[0], 95);
    for (const payload of [pack(0), pack(0, 0, 0, 0, 0, 0, "", ""), pack(0, 0, 0xffff_ffff, 9, 9, 9, "", "", "true")]) {
      agent.send(1, EXEC, payload);
      assert.equal(failure((await agent.finish(1)).last)[0], 22);
    }
    await pings();
  });

  it("folder, variables, limits, user and groups are as asked for", async function () {
    const place = join(folder, "made", "for it");
    const options = { folder: place, flags: MAKE_FOLDER | CLEAN, variables: ["A=1", "PATH=/usr/bin:/bin", "A_B=x=y"] };
    assert.equal((await agent.run(["pwd"], options)).output.toString(), `${place}\n`);
    assert.equal((await agent.run(["env"], options)).output.toString(), "A=1\nPATH=/usr/bin:/bin\nA_B=x=y\n");
    const variables = (await agent.run(["env"], { variables: ["HOME=/elsewhere"] })).output.toString().split("\n");
    assert.ok(variables.includes("HOME=/elsewhere") && variables.some((name) => name.startsWith("PATH=/usr/local")));
    assert.ok(!variables.some((name) => name.startsWith("TERM=")), "TERM without a terminal");
    const limited = await agent.run(["sh", "-c", "ulimit -n; ulimit -t"], { limits: [[7, 100n, 200n]] });
    assert.match(limited.output.toString(), /^100\n/);
    if (process.getuid?.() !== 0) this.skip();
    const id = async (user: string, groups: number[] = []): Promise<string> =>
      (await agent.run(["sh", "-c", 'echo $(id -u):$(id -g):$(id -G | tr " " ,)'], { user, groups })).output.toString();
    assert.equal(await id("nobody"), "65534:65534:65534\n");
    assert.equal(await id("12345"), "12345:0:0\n");
    assert.equal(await id("12345:77", [7, 8]), "12345:77:77,7,8\n");
    assert.equal(await id("daemon:tty"), "1:5:5\n");
    const member = readFileSync("/etc/group", "utf8")
      .split("\n")
      .find((line) => /:x?:\d+:\w/.test(line));
    if (member !== undefined) {
      const [, , gid = "", names = ""] = member.split(":");
      assert.ok((await id(names.split(",")[0] ?? "")).includes(gid));
    }
  });

  it("a terminal: its size, resizing, its end of file, its signals", async () => {
    agent.send(
      1,
      EXEC,
      exec(["sh", "-c", "stty size; tty >/dev/null && echo tty; read x; stty size; cat; exit 3"], {
        flags: TERMINAL,
        rows: 11,
        columns: 22,
      }),
    );
    assert.equal((await agent.next()).type, STARTED);
    let seen = "";
    const until = async (text: string): Promise<void> => {
      while (!seen.includes(text)) {
        const { type, payload } = await agent.next();
        if (type === DATA) seen += payload.toString();
      }
    };
    await until("11 22\r\ntty\r\n");
    agent.send(1, RESIZE, Buffer.from([33, 0, 44, 0]));
    agent.send(1, DATA, Buffer.from("go\n"));
    await until("33 44\r\n");
    agent.send(1, DATA, Buffer.from("no newline"));
    agent.send(1, END);
    const { output, last } = await agent.finish(1);
    assert.ok((seen + output.toString()).includes("no newlineno newline"));
    assert.deepEqual(ended(last), [3, 0]);
    agent.send(1, EXEC, exec(["cat"], { flags: TERMINAL }));
    assert.equal((await agent.next()).type, STARTED);
    agent.send(1, DATA, Buffer.from("\x03"));
    assert.deepEqual(ended((await agent.finish(1)).last), [0, 2]);
    const long = await agent.run(["seq", "1", "20000"], { flags: TERMINAL });
    assert.ok(long.output.toString().endsWith("\r\n20000\r\n"), "the last bytes are lost");
    assert.equal(long.output.toString().split("\r\n").length, 20_001);
  });

  it("signals go to the process or its group; CANCEL ends all of its session", async () => {
    agent.send(1, EXEC, exec(["sh", "-c", 'trap "echo got; exit 5" TERM; echo up; while :; do sleep 0.05; done']));
    assert.equal((await agent.next()).type, STARTED);
    assert.equal((await agent.next()).payload.toString(), "up\n");
    agent.send(1, SIGNAL, Buffer.from([15, 0, 0, 0]));
    const { output, last } = await agent.finish(1);
    assert.deepEqual([output.toString(), ended(last)], ["got\n", [5, 0]]);
    agent.send(1, EXEC, exec(["sh", "-c", "sleep 1000 & echo $!; wait"]));
    assert.equal((await agent.next()).type, STARTED);
    agent.send(1, SIGNAL, Buffer.from([9, 1, 0, 0]));
    assert.deepEqual(ended((await agent.finish(1)).last), [0, 9]);
    // A shell with job control gives each job a group of its own.
    agent.send(1, EXEC, exec(["bash", "-mc", "sleep 1000 & echo $!; wait"]));
    assert.equal((await agent.next()).type, STARTED);
    const child = (await agent.next()).payload.toString().trim();
    agent.send(1, CANCEL);
    assert.deepEqual(ended((await agent.finish(1)).last), [0, 9]);
    for (let i = 0; i < 100 && isRunning(child); i++) await new Promise((resolve) => setTimeout(resolve, 20));
    assert.ok(!isRunning(child), "a process of the session is left");
  });

  it("a signal, and a key that is one, come right behind the request: before its program has begun", async () => {
    for (let round = 0; round < 20; round++) {
      // Both are there before the agent has looked at the first.
      agent.write(
        Buffer.concat([frame(1, EXEC, exec(["sleep", "1000"])), frame(1, SIGNAL, Buffer.from([15, 0, 0, 0]))]),
      );
      assert.deepEqual(ended((await agent.finish(1)).last), [0, 15], `round ${String(round)}`);
      const atTerminal = exec(["sleep", "1000"], { flags: TERMINAL });
      agent.write(Buffer.concat([frame(1, EXEC, atTerminal), frame(1, DATA, Buffer.from("\x03"))]));
      assert.deepEqual(ended((await agent.finish(1)).last), [0, 2], `round ${String(round)}`);
    }
  });

  it("256 streams are open at once, one more is refused, and each gets its own bytes", async function () {
    this.timeout(120_000);
    for (let i = 1; i <= 256; i++) agent.send(i, EXEC, exec(["cat"]));
    agent.send(1000, EXEC, exec(["cat"]));
    const texts = new Map<number, string>();
    const finished = new Set<number>();
    let started = 0;
    while (started < 256 || !finished.has(1000)) {
      const { type, stream, payload } = await agent.next();
      if (type === STARTED) started++;
      else if (type === FAILED) finished.add(stream);
      if (type === FAILED) assert.deepEqual([stream, failure(payload)[0]], [1000, 11]);
    }
    for (let i = 256; i >= 1; i--) {
      agent.send(i, DATA, Buffer.from(`for ${String(i)}`));
      agent.send(i, END);
    }
    while (finished.size < 257) {
      const { type, stream, payload } = await agent.next();
      if (type === DATA) texts.set(stream, (texts.get(stream) ?? "") + payload.toString());
      if (type === DONE) finished.add(stream);
    }
    for (let i = 1; i <= 256; i++) assert.equal(texts.get(i), `for ${String(i)}`);
  });

  it("frames that come byte by byte, and many in one piece, are the same frames", async () => {
    const bytes = Buffer.concat([frame(1, EXEC, exec(["cat"])), frame(1, DATA, Buffer.from("slow")), frame(1, END)]);
    for (const byte of bytes) agent.write(Uint8Array.of(byte));
    assert.equal((await agent.finish(1)).output.toString(), "slow");
    const pieces: Buffer[] = [];
    for (let i = 0; i < 2000; i++) pieces.push(frame(0, PING, Buffer.from(String(i))));
    agent.write(Buffer.concat(pieces));
    for (let i = 0; i < 2000; i++) assert.equal((await agent.next()).payload.toString(), String(i));
  });

  it("what breaks the protocol ends all that runs, and the conversation begins anew", async () => {
    const wrong: [string, Buffer][] = [
      ["too long", frame(3, DATA, Buffer.alloc(FRAME + 1))],
      ["unknown type", frame(3, 0x7e)],
      ["a frame of the agent's", frame(3, STARTED, pack(1))],
      ["bytes that are to be zero", Buffer.from([0, 0, 0, 0, 1, 0, 0, 0, DATA, 0, 1, 0])],
      ["a stream's number", frame(0x8000_0000, EXEC, exec(["true"]))],
      ["a number in use", frame(1, EXEC, exec(["true"]))],
      ["a request without a stream", frame(0, EXEC, exec(["true"]))],
      [
        "more than the window",
        Buffer.concat(Array.from({ length: 4 * (WINDOW / FRAME) }, () => frame(1, DATA, Buffer.alloc(FRAME)))),
      ],
      ["more credit than a window", frame(1, CREDIT, credit(1, 1))],
      ["credit for nothing", frame(1, CREDIT, credit(3, 1))],
      ["a long ping", frame(0, PING, Buffer.alloc(65))],
      ["another host", frame(0, HELLO, pack(0x414c4d56, 2, 0, 0))],
    ];
    for (const [what, bytes] of wrong) {
      agent.send(1, EXEC, exec(["sleep", "1000"]));
      const { type, payload } = await agent.next();
      assert.equal(type, STARTED, what);
      const pid = String(payload.readUInt32LE(0));
      const nonce = agent.nonce;
      agent.write(bytes);
      await agent.hello();
      assert.notEqual(agent.nonce, nonce, what);
      for (let i = 0; i < 100 && isRunning(pid); i++) await new Promise((resolve) => setTimeout(resolve, 20));
      assert.ok(!isRunning(pid), `${what}: the command runs on`);
      agent.answer();
      await pings();
    }
  });

  it("until the host has said HELLO with the right nonce and version, nothing is heard", async () => {
    agent.answer(0);
    await agent.hello();
    agent.write(randomBytes(100_000));
    agent.send(1, EXEC, exec(["true"]));
    agent.answer(agent.nonce ^ 1);
    agent.send(0, PING);
    assert.equal(await agent.silence(), 0);
    agent.answer(agent.nonce, 1);
    await agent.hello();
    agent.write(randomBytes(11));
    agent.answer();
    await pings();
  });
});

/** Zombies are no longer. */
function isRunning(pid: string): boolean {
  try {
    return !/^\d+ \(.*\) [ZX]/s.test(readFileSync(`/proc/${pid}/stat`, "latin1"));
  } catch {
    return false;
  }
}
