// Needs: gcc. Trees of files both ways, through the real agent as a process of this host.
import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import {
  chmodSync,
  createReadStream,
  createWriteStream,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { copyIn, copyOut } from "../../vmm/agent/copy.js";
import { packTree } from "../../vmm/agent/tar-writer.js";
import type { TreeEntry } from "../../vmm/agent/tree-entry.js";
import { AgentProgram, type RealAgent } from "../helpers/real-agent.js";
import { skip } from "../helpers/skip.js";

/** What a tree holds without its root: type, mode, time, content or target by name, as latin1. */
function describeTree(root: string): Record<string, string> {
  const found: Record<string, string> = {};
  const walk = (path: Buffer, name: string): void => {
    const stat = lstatSync(path);
    const mode = (stat.mode & 0o777).toString(8);
    if (stat.isSymbolicLink()) found[name] = `link ${readlinkSync(path, { encoding: "latin1" })}`;
    else if (stat.isDirectory()) {
      found[name] = `folder ${mode} ${String(Math.round(stat.mtimeMs))}`;
      for (const child of readdirSync(path, { encoding: "buffer" })) {
        walk(Buffer.concat([path, Buffer.from("/"), child]), `${name}/${child.toString("latin1")}`);
      }
    } else if (stat.isFile())
      found[name] = `file ${mode} ${String(Math.round(stat.mtimeMs))} ${readFileSync(path).toString("base64")}`;
    else found[name] = "other";
  };
  walk(Buffer.from(root), "");
  delete found[""];
  return found;
}

/** Files, folders and links of all kinds, with odd names. */
function makeTree(root: string): void {
  mkdirSync(join(root, "folder/deep/deeper"), { recursive: true });
  mkdirSync(join(root, "empty"));
  writeFileSync(join(root, "empty.txt"), "");
  writeFileSync(join(root, "folder/small"), "small\0\xff\n");
  writeFileSync(join(root, "folder/large"), Buffer.alloc(300_000, 0xa5));
  writeFileSync(join(root, "folder/zeroes"), Buffer.alloc(200_000));
  writeFileSync(join(root, "folder/deep/deeper/script.sh"), "#!/bin/sh\n");
  chmodSync(join(root, "folder/deep/deeper/script.sh"), 0o755);
  writeFileSync(join(root, "new\nline \t\x07 and 'quotes\""), "x");
  writeFileSync(join(root, "ünïcode-文字"), "u");
  writeFileSync(Buffer.concat([Buffer.from(`${root}/bytes-`), Buffer.from([0xff, 0xfe, 0x80])]), "b");
  writeFileSync(join(root, "n".repeat(255)), "long");
  symlinkSync("folder/small", join(root, "link"));
  symlinkSync("/etc/passwd", join(root, "link-out"));
  symlinkSync("../../..", join(root, "folder/link-up"));
  symlinkSync("nowhere", join(root, "dangling"));
  for (let i = 0; i < 100; i++) writeFileSync(join(root, "empty", `file-${String(i)}`), String(i));
  chmodSync(join(root, "folder"), 0o751);
  utimesSync(join(root, "folder/small"), 1_600_000_000, 1_600_000_000.5);
  utimesSync(join(root, "folder"), 1_500_000_000, 1_500_000_000);
}

describe("agent trees", () => {
  const program = new AgentProgram();
  let running: RealAgent;
  let folder = "";
  let source = "";

  before(function () {
    const problem = program.build();
    if (problem !== undefined) skip(this, problem);
    running = program.start();
    folder = mkdtempSync(join(tmpdir(), "agent-trees-"));
    source = join(folder, "source");
    mkdirSync(source);
    makeTree(source);
  });

  after(async () => {
    await program.close();
    if (folder !== "") rmSync(folder, { recursive: true, force: true });
  });

  const files = (): RealAgent["agent"]["files"] => running.agent.files;

  it("a tree comes out as it is, and goes in as it is", async () => {
    const out = await copyOut(files(), source, join(folder, "out"));
    assert.deepEqual(describeTree(join(folder, "out")), describeTree(source));
    assert.equal(out.skippedCount, 0);
    await copyIn(files(), source, join(folder, "in"));
    assert.deepEqual(describeTree(join(folder, "in")), describeTree(source));
    // Again, over what is there.
    await copyIn(files(), `${source}/.`, join(folder, "in"));
    await copyOut(files(), `${source}/.`, join(folder, "out"));
    assert.deepEqual(describeTree(join(folder, "in")), describeTree(source));
    assert.deepEqual(describeTree(join(folder, "out")), describeTree(source));
    // Zeroes are holes.
    assert.ok(statSync(join(folder, "out/folder/zeroes")).blocks < 100);
  });

  it("a tree is a tar archive that tar(1) reads, and one of tar(1) becomes a tree", async () => {
    const archive = join(folder, "out.tar");
    await pipeline(files().readTree(source), createWriteStream(archive));
    mkdirSync(join(folder, "by-tar"));
    execFileSync("tar", ["-xf", archive, "-C", join(folder, "by-tar")]);
    const seconds = (tree: Record<string, string>): Record<string, string> =>
      Object.fromEntries(Object.entries(tree).map(([name, text]) => [name, text.replace(/(\d{10})\d{3}/, "$1")]));
    const whole = (tree: Record<string, string>): string[] => Object.keys(seconds(tree));
    assert.deepEqual(whole(describeTree(join(folder, "by-tar"))), whole(describeTree(source)));
    assert.equal(execFileSync("tar", ["-df", archive, "-C", source], { encoding: "utf8" }), "");
    for (const format of ["gnu", "pax", "ustar"]) {
      const made = join(folder, `${format}.tar`);
      // What ustar cannot hold is left out by tar itself, with an error.
      spawnSync("tar", ["-cf", made, `--format=${format}`, "-C", source, "."]);
      const target = join(folder, `from-${format}`);
      const count = await files().writeTree(target, createReadStream(made));
      assert.ok(count > 110);
      execFileSync("tar", ["-df", made, "-C", target]);
    }
  });

  it("the root of an archive has the name that is asked for; a single file is one, too", async () => {
    const archive = join(folder, "named.tar");
    await pipeline(files().readTree(join(source, "folder"), { name: "other" }), createWriteStream(archive));
    const names = execFileSync("tar", ["-tf", archive], { encoding: "utf8" }).trim().split("\n");
    assert.deepEqual(names.slice(0, 3), ["other/", "other/deep/", "other/deep/deeper/"]);
    await pipeline(files().readTree(join(source, "folder/small"), { name: "one" }), createWriteStream(archive));
    assert.equal(execFileSync("tar", ["-tf", archive], { encoding: "utf8" }), "one\n");
  });

  it("an archive that leads out, is cut, or is none, is refused, and nothing is written outside", async () => {
    const target = join(folder, "unpacked");
    const outside = join(folder, "outside");
    mkdirSync(outside);
    const entry = (path: string, rest: Partial<TreeEntry> = {}): TreeEntry => ({
      path: Buffer.from(path),
      type: "file",
      mode: 0o644,
      uid: 0,
      gid: 0,
      mtimeNs: 0n,
      size: 0,
      target: undefined,
      major: 0,
      minor: 0,
      content: undefined,
      ...rest,
    });
    const archiveOf = async (...entries: TreeEntry[]): Promise<Buffer> => {
      const chunks: Buffer[] = [];
      for await (const chunk of packTree(Readable.from(entries))) chunks.push(chunk as Buffer);
      return Buffer.concat(chunks);
    };
    const link = (path: string, to: string, type: "symlink" | "hardlink" = "symlink"): TreeEntry =>
      entry(path, { type, target: Buffer.from(to) });
    const bad: [string, Buffer][] = [
      ["..", await archiveOf(entry("../outside/x"))],
      [".. within", await archiveOf(entry("a/../../outside/x"))],
      ["through a link", await archiveOf(link("a", outside), entry("a/x"))],
      ["through a relative link", await archiveOf(link("a", "../outside"), entry("a/b/x"))],
      ["a hard link to what is outside", await archiveOf(link("x", "../secret", "hardlink"))],
      ["a hard link through a link", await archiveOf(link("b", folder), link("x", "b/named.tar", "hardlink"))],
      ["cut", (await archiveOf(entry("x", { size: 5000 }))).subarray(0, 3000)],
      ["none", Buffer.alloc(5000, 7)],
      ["too deep", await archiveOf(entry("d/".repeat(300)))],
    ];
    for (const [title, archive] of bad) {
      rmSync(target, { recursive: true, force: true });
      await assert.rejects(
        files().writeTree(target, Readable.from([archive])),
        (error: { code?: string }) => ["ERR_CONFIG", "ERR_IMAGE"].includes(error.code ?? ""),
        title,
      );
      assert.deepEqual(readdirSync(outside), [], title);
    }
    rmSync(target, { recursive: true, force: true });
    // Absolute names are names below the folder; a link that is replaced by a folder is no way out either.
    await files().writeTree(
      target,
      Readable.from([
        await archiveOf(entry(`${outside}/x`), link("a", outside), entry("a", { type: "directory" }), entry("a/y")),
      ]),
    );
    assert.ok(existsSync(join(target, outside, "x")));
    assert.ok(existsSync(join(target, "a/y")));
    assert.deepEqual(readdirSync(outside), []);
  });

  it("means what `docker cp` means", async () => {
    const there = join(folder, "there");
    for (const [index, copy] of [copyIn, copyOut].entries()) {
      rmSync(there, { recursive: true, force: true });
      mkdirSync(there);
      const run = (from: string, to: string): Promise<unknown> =>
        index === 0 ? copyIn(files(), from, to) : copyOut(files(), from, to);
      assert.ok(copy);
      await run(join(source, "folder/small"), there);
      await run(join(source, "folder/small"), join(there, "other"));
      assert.deepEqual([readFileSync(join(there, "small")), readFileSync(join(there, "other"))].map(String), [
        "small\0ÿ\n",
        "small\0ÿ\n",
      ]);
      await run(join(source, "folder/large"), join(there, "other"));
      assert.equal(statSync(join(there, "other")).size, 300_000);
      await run(join(source, "folder"), there);
      assert.ok(existsSync(join(there, "folder/deep/deeper/script.sh")));
      await run(join(source, "folder"), join(there, "renamed"));
      assert.ok(existsSync(join(there, "renamed/deep")));
      await run(`${source}/folder/.`, join(there, "folder/deep"));
      assert.ok(existsSync(join(there, "folder/deep/deep")));
      await run(join(source, "link"), there);
      assert.equal(readlinkSync(join(there, "link")), "folder/small");
      await assert.rejects(run(join(source, "folder"), join(there, "other")), { code: "ERR_CONFIG" });
      await assert.rejects(run(join(source, "folder/small"), `${there}/new/`), { code: "ERR_CONFIG" });
      await assert.rejects(run(`${source}/folder/small/`, there));
      await assert.rejects(run(join(source, "missing"), there));
      await assert.rejects(run(join(source, "folder/small"), join(there, "no/such/folder")));
    }
  });

  it("follows a link that is the source only if it is asked to", async () => {
    for (const way of ["in", "out"]) {
      const target = join(folder, `followed-${way}`);
      const from = join(source, "link");
      if (way === "in") await copyIn(files(), from, target, { followLink: true });
      else await copyOut(files(), from, target, { followLink: true });
      assert.equal(readFileSync(target, "latin1"), "small\0\xc3\xbf\n");
    }
  });

  it("what is in the way is replaced: files, links, hard links keep what they share", async () => {
    const target = join(folder, "replaced");
    mkdirSync(join(target, "folder"), { recursive: true });
    const secret = join(folder, "secret");
    writeFileSync(secret, "secret");
    symlinkSync(secret, join(target, "empty.txt"));
    symlinkSync(secret, join(target, "folder/small"));
    execFileSync("ln", [secret, join(target, "folder/large")]);
    for (const way of ["in", "out"]) {
      if (way === "in") await copyIn(files(), `${source}/.`, target);
      else await copyOut(files(), `${source}/.`, target);
      assert.equal(readFileSync(secret, "utf8"), "secret");
      assert.deepEqual(describeTree(target), describeTree(source));
    }
  });

  it("nothing is written through a link that is in the way of a folder", async () => {
    const elsewhere = join(folder, "elsewhere");
    const target = join(folder, "through");
    mkdirSync(elsewhere);
    mkdirSync(target);
    symlinkSync(elsewhere, join(target, "folder"));
    await assert.rejects(copyOut(files(), `${source}/.`, target), { code: "ERR_CONFIG" });
    assert.deepEqual(readdirSync(elsewhere), []);
    await copyIn(files(), `${source}/.`, target);
    // In the guest the link gives way.
    assert.ok(lstatSync(join(target, "folder")).isDirectory());
    assert.deepEqual(readdirSync(elsewhere), []);
  });

  it("devices, FIFOs and sockets are left out on the way to the host, with a note", async () => {
    const odd = join(folder, "odd");
    mkdirSync(odd);
    execFileSync("mkfifo", [join(odd, "fifo")]);
    writeFileSync(join(odd, "file"), "x");
    writeFileSync(join(odd, "setid"), "x");
    chmodSync(join(odd, "setid"), 0o6755);
    if (process.getuid?.() === 0) execFileSync("mknod", [join(odd, "null"), "c", "1", "3"]);
    const report = await copyOut(files(), odd, join(folder, "odd-out"));
    assert.deepEqual(readdirSync(join(folder, "odd-out")).sort(), ["file", "setid"]);
    assert.ok(report.skipped.some(({ reason }) => reason.includes("fifo")));
    assert.equal(statSync(join(folder, "odd-out/setid")).mode & 0o7777, 0o755);
  });

  it("has limits on bytes and entries, and leaves no descriptor open", async () => {
    const before = readdirSync("/proc/self/fd").length;
    await assert.rejects(
      copyOut(files(), source, join(folder, "limit-1"), { maxBytes: 100_000 }),
      /100000 bytes \(maxBytes\)/,
    );
    await assert.rejects(
      copyOut(files(), source, join(folder, "limit-2"), { maxEntries: 5 }),
      /5 entries \(maxEntries\)/,
    );
    const controller = new AbortController();
    controller.abort(new Error("enough"));
    await assert.rejects(copyOut(files(), source, join(folder, "limit-3"), { signal: controller.signal }), /enough/);
    await assert.rejects(copyIn(files(), source, join(folder, "limit-4"), { signal: controller.signal }), /enough/);
    await new Promise((resolve) => setTimeout(resolve, 50));
    assert.equal(readdirSync("/proc/self/fd").length, before);
    assert.equal(running.connection.streamCount, 0);
  });
});
