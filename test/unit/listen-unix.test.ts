// Needs: nothing. Unix sockets that listen at a path.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import {
  closeSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  renameSync,
  rmSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import type { SystemCallError } from "../../vmm/errors.js";
import { lockWhole } from "../../vmm/sys/locks.js";
import { connectUnix, isLeftOver, listenerWithConnection, listenUnix } from "../../vmm/sys/sockets.js";

describe("sockets: listening at a path", function () {
  this.timeout(30_000);
  let folder = "";
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "vmlet-test-"));
  });
  afterEach(() => {
    rmSync(folder, { recursive: true });
  });

  it("it is the only file that is made, and somebody listens there; a path that is taken stays as it is", () => {
    const path = join(folder, "a.sock");
    const fd = listenUnix(path);
    assert.deepEqual([readdirSync(folder), lstatSync(path).isSocket(), isLeftOver(path)], [["a.sock"], true, false]);
    assert.throws(() => listenUnix(path), { code: "EEXIST" });
    assert.equal(isLeftOver(path), false);
    closeSync(fd);
    assert.equal(isLeftOver(path), true);
    writeFileSync(join(folder, "file"), "text");
    assert.throws(() => listenUnix(join(folder, "file")), { code: "EEXIST" });
    assert.throws(() => listenUnix(join(folder, "none", "b.sock")), { code: "ENOENT" });
    assert.deepEqual(readdirSync(folder).sort(), ["a.sock", "file"]);
  });

  it("what a killed process has left is taken over, its half-made socket, too", () => {
    const path = join(folder, "a.sock");
    closeSync(listenUnix(path));
    closeSync(listenUnix(join(folder, "half")));
    renameSync(join(folder, "half"), join(folder, `.vmlet-${String(process.geteuid?.())}`));
    const fd = listenUnix(path);
    closeSync(connectUnix(path));
    assert.deepEqual(readdirSync(folder), ["a.sock"]);
    closeSync(fd);
  });

  it("while somebody keeps the folder locked, a socket is made, and nothing is taken over", () => {
    const [left, path] = [join(folder, "left"), join(folder, "a.sock")];
    closeSync(listenUnix(left));
    const locked = openSync(folder, "r");
    assert.ok(lockWhole(locked));
    const fd = listenUnix(path);
    closeSync(connectUnix(path));
    assert.throws(() => listenUnix(left), { errnoName: "EADDRINUSE" });
    assert.deepEqual(readdirSync(folder).sort(), ["a.sock", "left"]);
    closeSync(fd);
    closeSync(locked);
  });

  it("a listening socket without a file has our connection in front, and no other", async () => {
    const [connection, listener] = listenerWithConnection();
    const server = createServer();
    const accepted = once(server, "connection") as Promise<[Socket]>;
    server.listen({ fd: listener });
    const [socket] = await accepted;
    writeSync(connection, "ours");
    const [data] = (await once(socket, "data")) as [Buffer];
    assert.equal(String(data), "ours");
    socket.destroy();
    server.close();
    closeSync(connection);
  });

  it("a path as long as an address may be, in a folder whose name fills it", () => {
    const deep = join(folder, "d".repeat(106 - folder.length - 2));
    mkdirSync(deep);
    const fd = listenUnix(join(deep, "s"));
    assert.deepEqual(readdirSync(deep), ["s"]);
    closeSync(fd);
  });

  it("who connects as soon as there is a file is never refused", async () => {
    const path = join(folder, "often.sock");
    const child = spawn(process.execPath, [resolve("build/test/helpers/listen-often.js"), path], {
      stdio: ["pipe", "inherit", "inherit"],
    });
    try {
      const end = Date.now() + 3000;
      let connected = 0;
      while (Date.now() < end && connected < 500) {
        try {
          closeSync(connectUnix(path));
          connected++;
        } catch (error) {
          // Before it is made, or after it has been removed; nothing listens between close and unlink, which come the other way round.
          assert.equal((error as SystemCallError).errnoName, "ENOENT");
        }
      }
      assert.ok(connected > 10, String(connected));
    } finally {
      child.stdin.end("\n");
      if (child.exitCode === null) await once(child, "exit");
    }
  });
});
