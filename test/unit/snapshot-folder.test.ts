// Needs: nothing; as root, also another user's files. The folder of a snapshot: whose it is, what lies in it, who writes.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
  chmodSync,
  chownSync,
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { SnapshotError } from "../../vmm/errors.js";
import { openSnapshotFile, readSnapshotFile, SnapshotFolder } from "../../vmm/snapshot/folder.js";
import { encodeState } from "../../vmm/snapshot/state-file.js";
import { skip } from "../helpers/skip.js";

const MEMORY = `memory-${"0".repeat(32)}`;
const ANOTHER_USER = 65534;

describe("snapshot: its folder", () => {
  let top: string;
  const at = (name: string): string => join(top, name);
  const folder = (name: string, ...files: string[]): string => {
    mkdirSync(at(name));
    for (const file of files) writeFileSync(join(at(name), file), file === "state.json" ? encodeState({}) : "");
    return at(name);
  };

  beforeEach(() => {
    top = mkdtempSync(join(tmpdir(), "vmlet-folder-"));
  });
  afterEach(() => {
    rmSync(top, { recursive: true });
  });

  function refused(take: () => { close(): void }, reason: RegExp): void {
    assert.throws(
      () => {
        take().close();
      },
      (error) => {
        assert.ok(error instanceof SnapshotError, String(error));
        assert.match(error.message, reason);
        return true;
      },
    );
  }

  it("is made for its owner alone, with those above it, and goes if nothing comes of it", () => {
    const path = at("a/b/c");
    const taken = SnapshotFolder.take(path);
    assert.equal(statSync(path).mode & 0o777, 0o700);
    taken.giveUp();
    assert.deepEqual(readdirSync(top), []);
    const again = SnapshotFolder.take(path);
    writeFileSync(at("a/mine"), "");
    again.giveUp();
    assert.deepEqual(readdirSync(at("a")), ["mine"]);
    const there = folder("there");
    SnapshotFolder.take(there).giveUp();
    assert.ok(existsSync(there));
  });

  it("what is no folder, or leads nowhere, is refused with the reason", () => {
    writeFileSync(at("file"), "mine");
    refused(() => SnapshotFolder.take(at("file")), /file: not a folder$/);
    refused(() => SnapshotFolder.take(at("file/below")), /below: a part of the path is not a folder/);
    symlinkSync("nowhere", at("dangling"));
    refused(() => SnapshotFolder.take(at("dangling")), /dangling: .*\(E[A-Z]+\)$/);
    symlinkSync("loop", at("loop"));
    refused(() => SnapshotFolder.take(at("loop")), /loop: too many symbolic links/);
    refused(() => SnapshotFolder.take(at("x".repeat(300))), /the name is too long/);
    refused(() => SnapshotFolder.takeExisting(at("none")), /none: no such file or folder/);
    refused(() => SnapshotFolder.take("/proc/vmlet-snapshot"), /^\/proc\/vmlet-snapshot: .*\(E[A-Z]+\)$/);
    assert.deepEqual(readdirSync(top).sort(), ["dangling", "file", "loop"]);
  });

  it("a link to a folder of one's own is as good as that; to remove one, its own name is needed", () => {
    folder("own");
    symlinkSync("own", at("link"));
    SnapshotFolder.take(at("link")).close();
    refused(() => SnapshotFolder.takeExisting(at("link")), /link: a symbolic link/);
    SnapshotFolder.takeExisting(at("own")).close();
  });

  it("another user's folder, or one that everybody may write to, is refused", function () {
    const open = folder("open");
    chmodSync(open, 0o777);
    refused(() => SnapshotFolder.take(open), /open: every user may write to it/);
    if (process.geteuid?.() !== 0) skip(this, "only root can give a folder away");
    const others = folder("others");
    chownSync(others, ANOTHER_USER, ANOTHER_USER);
    refused(() => SnapshotFolder.take(others), /others: belongs to another user \(uid 65534\)/);
    symlinkSync("others", at("link"));
    refused(() => SnapshotFolder.take(at("link")), /link: belongs to another user/);
  });

  it("holds a snapshot's files and nothing else, which is named", () => {
    SnapshotFolder.take(folder("whole", "state.json", MEMORY, `state.json.${"1".repeat(32)}`)).close();
    refused(() => SnapshotFolder.take(folder("notes", "notes", "state.json")), /no part of a snapshot: "notes"$/);
    const many = folder("many", "a", "b", "c", "d", "e");
    refused(() => SnapshotFolder.take(many), /: "a", "b", "c" and 2 more$/);
    const foreign = folder("foreign");
    writeFileSync(join(foreign, "state.json"), '{"mine":true}');
    refused(() => SnapshotFolder.take(foreign), /no part of a snapshot: "state.json"$/);
    const pipe = folder("pipe");
    execFileSync("mkfifo", [join(pipe, "state.json")]);
    refused(() => SnapshotFolder.take(pipe), /no part of a snapshot: "state.json"$/);
    // What the terminal would obey is not printed as it is.
    refused(() => SnapshotFolder.take(folder("colour", "\x1b[31m")), /: "\\u001b\[31m"$/);
  });

  it("one process at a time writes to it", () => {
    const path = folder("own");
    const first = SnapshotFolder.take(path);
    refused(() => SnapshotFolder.take(path), /another vmlet is writing or removing/);
    first.close();
    SnapshotFolder.take(path).close();
  });

  it("its files: no pipe, device, folder, link, and nothing without end, is waited for or read", async () => {
    const file = at("state.json");
    const wrong = (reason: RegExp, maximum = 1000): void => {
      refused(() => ({ close: () => void readSnapshotFile(file, maximum) }), reason);
      rmSync(file, { recursive: true });
    };
    refused(() => ({ close: () => void readSnapshotFile(file, 1000) }), /state.json: no such file or folder/);
    execFileSync("mkfifo", [file]);
    wrong(/not a regular file/);
    mkdirSync(file);
    wrong(/a folder$/);
    symlinkSync("/dev/zero", file);
    wrong(/too many symbolic links, or one that leads to itself \(ELOOP\)/);
    const server = createServer().listen(file);
    await new Promise((resolve) => server.once("listening", resolve));
    refused(() => ({ close: () => void readSnapshotFile(file, 1000) }), /\(ENXIO\)$/);
    await new Promise((resolve) => server.close(resolve));
    writeFileSync(file, "");
    truncateSync(file, 2 ** 40);
    wrong(/has 1099511627776 bytes, more than 1000$/);
    writeFileSync(file, "", { mode: 0o666 });
    chmodSync(file, 0o666);
    wrong(/every user may write to it/);
    writeFileSync(file, "whole");
    assert.equal(readSnapshotFile(file, 5).toString(), "whole");
  });

  it("its files: another user's are refused, root's are not", function () {
    if (process.geteuid?.() !== 0) {
      closeSync(openSnapshotFile("/etc/passwd").fd);
      skip(this, "only root can give a file away");
    }
    const file = at("memory");
    writeFileSync(file, "");
    chownSync(file, ANOTHER_USER, ANOTHER_USER);
    refused(() => ({ close: () => closeSync(openSnapshotFile(file).fd) }), /belongs to another user \(uid 65534\)/);
  });
});
