// Needs: nothing. Copies to the host from a guest that lies: nothing is written outside of the target, nothing grows or hangs.
import assert from "node:assert/strict";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { AgentConnection } from "../../vmm/agent/connection.js";
import { copyOut, type CopyOutOptions, type CopyReport } from "../../vmm/agent/copy.js";
import { GuestFiles } from "../../vmm/agent/files.js";
import * as frames from "../../vmm/agent/frames.js";
import { WINDOW } from "../../vmm/agent/stream.js";
import { AgentPeer, u32 } from "../helpers/agent-peer.js";

const FOLDER = 0o040_755;
const FILE = 0o100_644;
const LINK = 0o120_777;

function stat(mode: number, size = 0n): Buffer {
  const bytes = Buffer.alloc(64);
  bytes.writeUInt32LE(mode, 0);
  bytes.writeUInt32LE(1, 12);
  bytes.writeBigUInt64LE(size, 16);
  // A time that no file has.
  bytes.writeBigUInt64LE(2n ** 63n - 1n, 32);
  return bytes;
}

function entry(name: string | Buffer, mode: number, { size = 0n, target = "" } = {}): Buffer {
  const nameBytes = Buffer.from(name as string);
  const head = Buffer.alloc(4);
  head.writeUInt16LE(4 + 64 + nameBytes.length + target.length, 0);
  head.writeUInt16LE(nameBytes.length, 2);
  return Buffer.concat([head, stat(mode, size), nameBytes, Buffer.from(target)]);
}

interface Guest {
  /** By path: the bytes of LIST, or a function that makes more of them for ever. */
  readonly lists: (path: string) => Buffer | undefined;
  /** What READ sends, in pieces; undefined: ENOENT. */
  readonly reads?: (path: string) => readonly Buffer[] | "endless" | undefined;
}

/** A guest whose root folder is /tree. */
class LyingPeer extends AgentPeer {
  readonly #credit = new Map<number, number>();
  readonly #endless = new Set<number>();

  constructor(guest: Guest) {
    super();
    this.onFrame = (stream, type, payload) => {
      const copy = Buffer.from(payload);
      setImmediate(() => {
        this.#answer(guest, stream, type, copy);
      });
    };
  }

  #answer(guest: Guest, stream: number, type: number, payload: Buffer): void {
    if (this.isClosed) return;
    const pathAt = type === frames.READ ? 20 : 4;
    const path = payload.toString("latin1", pathAt, Math.max(pathAt, payload.indexOf(0, pathAt)));
    switch (type) {
      case frames.STAT:
        this.send(stream, frames.DONE, stat(FOLDER));
        return;
      case frames.LIST: {
        const list = guest.lists(path);
        if (list === undefined) this.send(stream, frames.FAILED, u32(2));
        else this.#content(stream, [list], Buffer.alloc(0));
        return;
      }
      case frames.READ: {
        const content = guest.reads?.(path);
        if (content === undefined) this.send(stream, frames.FAILED, u32(2));
        else if (content === "endless") {
          this.#credit.set(stream, WINDOW);
          this.#endless.add(stream);
          this.#more(stream);
        } else this.#content(stream, content, stat(FILE));
        return;
      }
      case frames.CREDIT:
        this.#credit.set(stream, (this.#credit.get(stream) ?? 0) + payload.readUInt32LE(4));
        if (this.#endless.has(stream)) this.#more(stream);
        return;
      case frames.CANCEL:
        this.#endless.delete(stream);
        this.send(stream, frames.FAILED, u32(125));
        return;
      default:
    }
  }

  #content(stream: number, pieces: readonly Buffer[], last: Buffer): void {
    for (const piece of pieces) if (piece.length > 0) this.send(stream, frames.DATA, piece);
    this.send(stream, frames.END);
    this.send(stream, frames.DONE, last);
  }

  #more(stream: number): void {
    const count = this.#credit.get(stream) ?? 0;
    this.#credit.set(stream, 0);
    for (let left = count; left > 0; left -= 32_768)
      this.send(stream, frames.DATA, Buffer.alloc(Math.min(left, 32_768), 1));
  }
}

describe("agent copies, a guest that lies", () => {
  let folder: string;
  let target: string;
  let outside: string;

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "agent-hostile-"));
    target = join(folder, "target");
    outside = join(folder, "outside");
    mkdirSync(target);
    mkdirSync(outside);
    writeFileSync(join(outside, "kept"), "kept");
  });

  afterEach(() => {
    rmSync(folder, { recursive: true });
  });

  /** Copies /tree/. into the target; whatever becomes of it, nothing outside has changed and nothing is left open. */
  async function copy(
    guest: Guest,
    options: CopyOutOptions = {},
  ): Promise<{ report?: CopyReport; error?: Error & { code?: string } }> {
    const before = readdirSync("/proc/self/fd").length;
    const peer = new LyingPeer(guest);
    const connection = new AgentConnection(peer);
    peer.hello();
    const result: { report?: CopyReport; error?: Error & { code?: string } } = {};
    try {
      result.report = await copyOut(new GuestFiles(connection), "/tree/.", target, options);
    } catch (error) {
      result.error = error as Error;
    }
    connection.close();
    assert.deepEqual(readdirSync(outside), ["kept"]);
    assert.equal(readFileSync(join(outside, "kept"), "utf8"), "kept");
    assert.deepEqual(readdirSync(folder).sort(), ["outside", "target"]);
    await new Promise((resolve) => setTimeout(resolve, 10));
    assert.equal(readdirSync("/proc/self/fd").length, before);
    return result;
  }

  const only = (path: string, list: Buffer) => (asked: string) =>
    asked.startsWith(path) && asked.length <= path.length + 2 ? list : undefined;

  const names: [string, Buffer][] = [
    ["..", entry("..", FILE)],
    [".", entry(".", FOLDER)],
    ["no name", entry("", FILE)],
    ["a path", entry("../outside/kept", FILE)],
    ["an absolute path", entry("/etc/passwd", FILE)],
    ["NUL", entry("a\0b", FILE)],
    ["too long", entry("n".repeat(300), FILE)],
    ["a link with NUL", entry("a", LINK, { target: "x\0y" })],
    ["a file with a link", entry("a", FILE, { target: "x" })],
    ["a name longer than its entry", Buffer.concat([Buffer.from([68, 0, 9, 0]), stat(FILE)])],
    ["an entry of no length", Buffer.alloc(200)],
    ["an entry that is cut", entry("abc", FILE).subarray(0, 70)],
  ];
  for (const [title, list] of names) {
    it(`in a list: ${title}`, async () => {
      const { error } = await copy({ lists: only("/tree", list) });
      assert.equal(error?.code, "ERR_AGENT");
      assert.deepEqual(readdirSync(target), []);
    });
  }

  it("a link and then a folder of the same name: nothing is written through the link", async () => {
    const root = Buffer.concat([entry("a", LINK, { target: outside }), entry("a", FOLDER)]);
    const { error } = await copy({
      lists: (path) => (path.endsWith("a") ? entry("kept", FILE, { size: 3n }) : root),
      reads: () => [Buffer.from("bad")],
    });
    assert.equal(error?.code, "ERR_CONFIG");
    assert.equal(readlinkSync(join(target, "a")), outside);
  });

  it("a link and then a file of the same name: the link is replaced, not written through", async () => {
    const root = Buffer.concat([entry("a", LINK, { target: join(outside, "kept") }), entry("a", FILE, { size: 3n })]);
    const { error } = await copy({ lists: only("/tree", root), reads: () => [Buffer.from("bad")] });
    assert.equal(error, undefined);
    assert.equal(readFileSync(join(target, "a"), "utf8"), "bad");
  });

  it("a link of the host in the way, such as an earlier copy has left: not followed", async () => {
    symlinkSync(outside, join(target, "dir"));
    const lists = (path: string): Buffer =>
      path.endsWith("dir") ? entry("kept", FILE, { size: 3n }) : entry("dir", FOLDER);
    assert.equal((await copy({ lists, reads: () => [Buffer.from("bad")] })).error?.code, "ERR_CONFIG");
  });

  it("more bytes than it has said end the connection; fewer make a shorter file", async () => {
    const list = entry("a", FILE, { size: 3n });
    const more = await copy({ lists: only("/tree", list), reads: () => [Buffer.from("four")] });
    assert.match(more.error?.message ?? "", /more than was asked for/);
    const fewer = await copy({ lists: only("/tree", list), reads: () => [Buffer.from("x")] });
    assert.equal(fewer.error, undefined);
    assert.equal(statSync(join(target, "a")).size, 1);
  });

  it("what has gone between list and read is left out, and said", async () => {
    const list = Buffer.concat([entry("a", FILE, { size: 3n }), entry("b", FILE, { size: 1n }), entry("c", FOLDER)]);
    const { report } = await copy({
      lists: (path) => (path.endsWith("c") ? undefined : list),
      reads: (path) => (path.endsWith("b") ? [Buffer.from("b")] : undefined),
    });
    assert.deepEqual(
      report?.skipped.map(({ path }) => path),
      ["/tree/./a", "/tree/./c"],
    );
    assert.equal(readFileSync(join(target, "b"), "utf8"), "b");
  });

  it("an endless file, and one of 2^63 bytes, end at maxBytes", async () => {
    const { error } = await copy(
      { lists: only("/tree", entry("a", FILE, { size: 2n ** 63n })), reads: () => "endless" },
      { maxBytes: 1_000_000 },
    );
    assert.match(error?.message ?? "", /1000000 bytes \(maxBytes\)/);
    assert.ok(statSync(join(target, "a")).size <= 1_000_000);
  });

  it("folders without end stop at a depth", async () => {
    const { error } = await copy({ lists: () => entry("d", FOLDER) });
    assert.match(error?.message ?? "", /256 folders deep|has more than|limit is/);
  });

  it("devices of any kind and types that do not exist are left out", async () => {
    const kinds = [0o020_666, 0o060_666, 0o010_666, 0o140_666, 0o000_666, 0o170_666];
    const list = Buffer.concat(kinds.map((mode, index) => entry(`x${String(index)}`, mode)));
    const { report } = await copy({ lists: only("/tree", list) });
    assert.equal(report?.skippedCount, kinds.length);
    assert.deepEqual(readdirSync(target), []);
  });

  it("the bits of files are those of files, and times that no file has become ones that it may have", async () => {
    const { error } = await copy({ lists: only("/tree", entry("a", 0o107_777)) });
    assert.equal(error, undefined);
    assert.equal(statSync(join(target, "a")).mode & 0o7777, 0o777);
    assert.ok(existsSync(join(target, "a")));
  });
});
