// Needs: gcc. The guest's agent as a process of this host: files, and the guest as a whole.
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import {
  chmodSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { createServer, type AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { execFileSync } from "node:child_process";
import {
  AgentProcess,
  CANCEL,
  CREDIT,
  DATA,
  DONE,
  END,
  FAILED,
  PING,
  PONG,
  buildAgent,
  credit,
  pack,
} from "../helpers/agent-process.js";

const WINDOW = 524_288;
const FRAME = 65_536;
const TO_THE_END = 0xffff_ffff_ffff_ffffn;
const [STAT, LIST, READ, WRITE, MKDIR, REMOVE] = [0x20, 0x21, 0x22, 0x23, 0x24, 0x25];
const [RENAME, LINK, READLINK, SETATTR, MKNOD] = [0x26, 0x27, 0x28, 0x29, 0x2a];
const [WAIT_PORT, IDENTITY, SYNC, POWER_OFF] = [0x30, 0x31, 0x33, 0x34];
const FOLLOW = 1;
const TREE = 2;
const FORCE = 4;
const [CREATE, EXCLUSIVE, TRUNCATE, APPEND, OWNER, MODE] = [4, 8, 16, 32, 64, 128];
const [ENOENT, EEXIST, ENOTDIR, EISDIR, EINVAL, ENOTEMPTY, ELOOP, EOPNOTSUPP, ECANCELED] = [
  2, 17, 20, 21, 22, 39, 40, 95, 125,
];

describe("guest: the agent and its files", () => {
  let folder = "";
  let path = "";
  let agent: AgentProcess;
  const at = (name: string): string => join(folder, name);

  before(async function () {
    this.timeout(120_000);
    folder = mkdtempSync(join(tmpdir(), "vmlet-test-"));
    path = buildAgent(folder);
    agent = await new AgentProcess(path).begin();
  });
  after(async () => {
    assert.equal(await agent.close(), 0);
    rmSync(folder, { recursive: true });
  });

  /** The errno, 0 if it was done. */
  async function errno(type: number, ...values: (number | bigint | string)[]): Promise<number> {
    const { types, last } = await agent.request(type, pack(...values));
    return types.at(-1) === DONE ? 0 : last.readUInt32LE(0);
  }

  async function read(name: string, offset = 0n, count = TO_THE_END): Promise<Buffer> {
    const { types, output } = await agent.request(READ, pack(0, offset, count, name));
    assert.deepEqual(types, [END, DONE]);
    return output;
  }

  async function write(name: string, bytes: Uint8Array, flags: number, mode = 0o644, offset = 0n): Promise<number> {
    agent.send(9, WRITE, pack(flags, mode, process.getuid?.() ?? 0, process.getgid?.() ?? 0, offset, name));
    let allowed = WINDOW;
    for (let sent = 0; sent < bytes.length;) {
      const count = Math.min(allowed, bytes.length - sent, FRAME);
      if (count > 0) {
        agent.send(9, DATA, bytes.subarray(sent, sent + count));
        sent += count;
        allowed -= count;
        continue;
      }
      const { type, payload } = await agent.next();
      if (type === FAILED) return payload.readUInt32LE(0);
      assert.equal(type, CREDIT);
      allowed += payload.readUInt32LE(4);
      assert.ok(allowed <= WINDOW);
    }
    agent.send(9, END);
    const { types, last } = await agent.finish(9);
    return types.at(-1) === DONE ? 0 : last.readUInt32LE(0);
  }

  it("files are written and read, big and odd ones, at offsets, with their modes", async () => {
    const bytes = randomBytes(1_500_000);
    const name = at("odd \xff\n'name");
    const path = Buffer.from(name, "latin1");
    assert.equal(await write(name, bytes, CREATE | EXCLUSIVE | MODE, 0o4711), 0);
    assert.ok(readFileSync(path).equals(bytes));
    assert.equal(statSync(path).mode & 0o7777, 0o4711);
    assert.ok((await read(name)).equals(bytes));
    assert.ok((await read(name, 1_499_990n)).equals(bytes.subarray(1_499_990)));
    assert.ok((await read(name, 5n, 70_000n)).equals(bytes.subarray(5, 70_005)));
    assert.equal((await read(name, 2_000_000n)).length, 0);
    assert.equal(await write(name, bytes, CREATE | EXCLUSIVE), EEXIST);
    assert.equal(await write(name, Buffer.from("end"), APPEND), 0);
    assert.equal(await write(name, Buffer.from("middle"), 0, 0, 100n), 0);
    const now = readFileSync(path);
    assert.deepEqual(
      [now.length, now.subarray(100, 106).toString(), now.subarray(-3).toString()],
      [1_500_003, "middle", "end"],
    );
    assert.equal(await write(name, new Uint8Array(), TRUNCATE | OWNER), 0);
    assert.equal(statSync(path).size, 0);
    assert.ok((await read("/proc/self/status")).toString().startsWith("Name:\tinit\n"));
    assert.equal(await write(at("missing"), Buffer.from("x"), 0), ENOENT);
    assert.equal(await write(folder, Buffer.from("x"), 0), EISDIR);
    assert.equal(await errno(READ, 0, 0n, TO_THE_END, folder), EISDIR);
  });

  it("a file is read within its window, beside other requests, and given up by CANCEL", async () => {
    writeFileSync(at("zeroes"), Buffer.alloc(2_000_000));
    agent.send(5, READ, pack(0, 0n, TO_THE_END, at("zeroes")));
    let length = 0;
    while (length < WINDOW) length += (await agent.next()).payload.length;
    assert.equal(length, WINDOW);
    assert.equal(await agent.silence(), 0);
    agent.send(0, PING);
    assert.equal((await agent.next()).type, PONG);
    agent.send(5, CREDIT, credit(1, 1000));
    assert.equal((await agent.next()).payload.length, 1000);
    agent.send(5, CANCEL);
    const { types, last } = await agent.finish(5);
    assert.deepEqual([types, last.readUInt32LE(0)], [[FAILED], ECANCELED]);
  });

  it("a pipe without a writer, or without a reader that reads, does not hold up the others", async () => {
    execFileSync("mkfifo", [at("pipe")]);
    assert.equal(await write(at("pipe"), Buffer.from("x"), 0), 6, "ENXIO");
    const reader = new AgentProcess(path);
    await reader.begin();
    agent.send(5, READ, pack(0, 0n, 10n, at("pipe")));
    agent.send(0, PING);
    // Without a writer it is at its end at once, and that may be said before the PING is answered.
    let isDone = false;
    for (;;) {
      const { type, stream } = await agent.next();
      if (stream === 5 && type === DONE) isDone = true;
      if (type === PONG) break;
    }
    if (!isDone) {
      agent.send(5, CANCEL);
      await agent.finish(5);
    }
    assert.equal(await reader.close(), 0);
  });

  it("STAT, LIST and READLINK tell what there is, and follow a link only when asked to", async () => {
    const place = at("listed");
    mkdirSync(place);
    writeFileSync(join(place, "file"), "12345");
    chmodSync(join(place, "file"), 0o640);
    linkSync(join(place, "file"), join(place, "same"));
    symlinkSync("file", join(place, "link"));
    symlinkSync("x".repeat(4000), join(place, "long"));
    for (let i = 0; i < 700; i++) writeFileSync(join(place, `n${String(i).padStart(200, "0")}`), "");
    const stat = async (name: string, flags: number): Promise<number[]> => {
      const { last } = await agent.request(STAT, pack(flags, name));
      assert.equal(last.length, 64);
      const about = flags ? statSync(name) : lstatSync(name);
      assert.deepEqual(
        [
          last.readUInt32LE(0),
          last.readUInt32LE(4),
          last.readUInt32LE(12),
          Number(last.readBigUInt64LE(16)),
          Number(last.readBigUInt64LE(24)),
        ],
        [about.mode, about.uid, about.nlink, about.size, about.ino],
      );
      assert.equal(Number(last.readBigUInt64LE(32)), Math.floor(about.mtimeMs / 1000));
      return [last.readUInt32LE(0)];
    };
    assert.deepEqual(await stat(join(place, "link"), FOLLOW), [0o100640]);
    assert.deepEqual(await stat(join(place, "link"), 0), [0o120777]);
    await stat("/dev/null", 0);
    assert.equal(await errno(STAT, 0, at("missing")), ENOENT);
    assert.equal(await errno(STAT, 0, "relative"), EINVAL);
    assert.equal(await errno(STAT, 0, `/${"x".repeat(5000)}`), EINVAL);
    assert.equal((await agent.request(READLINK, pack(0, join(place, "long")))).last.toString(), "x".repeat(4000));
    for (const flags of [0, 2]) {
      const { output, types } = await agent.request(LIST, pack(flags, place));
      assert.deepEqual(types, [END, DONE]);
      const names: string[] = [];
      for (let i = 0; i < output.length; i += output.readUInt16LE(i)) {
        const length = output.readUInt16LE(i + 2);
        const name = output.subarray(i + 68, i + 68 + length).toString();
        names.push(name);
        const about = lstatSync(join(place, name));
        assert.equal(output.readUInt32LE(i + 4) & 0o170000, about.mode & 0o170000);
        if (flags) continue;
        assert.equal(Number(output.readBigUInt64LE(i + 4 + 16)), about.size);
        const target = output.subarray(i + 68 + length, i + output.readUInt16LE(i)).toString();
        assert.equal(target, about.isSymbolicLink() ? readlinkSync(join(place, name)) : "");
      }
      assert.deepEqual(names.sort(), readdirSync(place).sort());
    }
    assert.equal(await errno(LIST, 0, join(place, "link")), ENOTDIR);
  });

  it("folders, links, names, owners, modes, times and lengths are made and changed", async () => {
    const [uid, gid] = [process.getuid?.() ?? 0, process.getgid?.() ?? 0];
    assert.equal(await errno(MKDIR, 2 | OWNER, 0o1770, uid, gid, at("a//b/c/")), 0);
    assert.equal(statSync(at("a/b/c")).mode & 0o7777, 0o1770);
    assert.equal(await errno(MKDIR, 2, 0o700, 0, 0, at("a/b/c")), 0);
    assert.equal(await errno(MKDIR, 0, 0o700, 0, 0, at("a/b/c")), EEXIST);
    assert.equal(await errno(MKDIR, 0, 0o700, 0, 0, at("x/y")), ENOENT);
    writeFileSync(at("a/file"), "content");
    assert.equal(await errno(RENAME, 0, at("a/file"), at("a/b/moved")), 0);
    assert.equal(await errno(LINK, 2, "../b/moved", at("a/b/soft")), 0);
    assert.equal(await errno(LINK, 0, at("a/b/moved"), at("a/b/hard")), 0);
    assert.deepEqual([readlinkSync(at("a/b/soft")), statSync(at("a/b/hard")).nlink], ["../b/moved", 2]);
    const set = (flags: number, mode: number, name: string, accessed = 0n, modified = 0n): Promise<number> =>
      errno(SETATTR, flags, mode, uid, gid, accessed, modified, name);
    assert.equal(
      await set(2 | 4 | 8, 0o604, at("a/b/moved"), 1_500_000_000_250_000_000n, 1_600_000_000_500_000_000n),
      0,
    );
    const about = statSync(at("a/b/moved"));
    assert.deepEqual(
      [about.mode & 0o7777, about.atimeMs, about.mtimeMs],
      [0o604, 1_500_000_000_250, 1_600_000_000_500],
    );
    assert.equal(await set(16, 0, at("a/b/moved"), 0n, 3n), 0);
    assert.equal(readFileSync(at("a/b/moved"), "utf8"), "con");
    assert.equal(await set(2, 0o777, at("a/b/soft")), EOPNOTSUPP);
    assert.equal(await set(16, 0, at("a/b/soft"), 0n, 0n), ELOOP);
    assert.equal(statSync(at("a/b/moved")).size, 3);
    assert.equal(await set(8, 0, at("a/b/soft"), TO_THE_END, 1_000_000_000n), 0);
    assert.equal(lstatSync(at("a/b/soft")).mtimeMs, 1000);
    assert.equal(await errno(MKNOD, 0, 0o010600, 0, 0, at("fifo")), 0);
    assert.ok(statSync(at("fifo")).isFIFO());
  });

  it("REMOVE takes what it is told to: never through a link, however deep", async () => {
    const outside = at("outside");
    mkdirSync(outside);
    writeFileSync(join(outside, "kept"), "");
    const tree = at("tree");
    mkdirSync(join(tree, "x"), { recursive: true });
    symlinkSync(outside, join(tree, "x", "link"));
    symlinkSync("/", join(tree, "root"));
    for (let i = 0; i < 400; i++) writeFileSync(join(tree, "x", String(i)), "");
    // As deep as a path can name it.
    mkdirSync(join(tree, ...Array.from({ length: 350 }, () => "d123456789")), { recursive: true });
    assert.equal(await errno(REMOVE, 0, tree), ENOTEMPTY);
    assert.equal(await errno(REMOVE, TREE, tree), 0);
    assert.equal(existsSync(tree), false);
    assert.ok(existsSync(join(outside, "kept")));
    symlinkSync(outside, at("to-outside"));
    assert.equal(await errno(REMOVE, TREE, at("to-outside")), 0);
    assert.ok(existsSync(join(outside, "kept")));
    assert.equal(await errno(REMOVE, 0, at("missing")), ENOENT);
    assert.equal(await errno(REMOVE, FORCE | TREE, at("missing")), 0);
    assert.equal(await errno(REMOVE, 0, join(outside, "kept")), 0);
    assert.equal(await errno(REMOVE, 0, outside), 0);
    assert.equal(existsSync(outside), false);
  });

  it("WAIT_PORT ends when somebody listens; SYNC is done; an identity that is not allowed fails", async () => {
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const { port } = server.address() as AddressInfo;
    await new Promise((resolve) => server.close(resolve));
    agent.send(5, WAIT_PORT, pack(port, 20));
    assert.equal(await agent.silence(), 0);
    const again = createServer();
    await new Promise<void>((resolve) => again.listen(port, "127.0.0.1", resolve));
    assert.deepEqual((await agent.finish(5)).types, [DONE]);
    await new Promise((resolve) => again.close(resolve));
    agent.send(5, WAIT_PORT, pack(port, 20));
    agent.send(5, CANCEL);
    assert.equal((await agent.finish(5)).last.readUInt32LE(0), ECANCELED);
    assert.equal(await errno(SYNC), 0);
    assert.equal(await errno(IDENTITY, 0, 0, 0n, 0, 0, 0n, 0n, 0n, 0n, ""), 0);
    assert.equal(await errno(IDENTITY, 0), EINVAL);
  });

  it("POWER_OFF ends the agent with the status", async () => {
    const other = await new AgentProcess(path).begin();
    other.send(1, POWER_OFF, pack(42));
    assert.equal(await other.close(), 42);
  });
});
