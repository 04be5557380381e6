// Needs: nothing. The control socket, its protocol, and `vmlet balloon`.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { createConnection, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { balloon } from "../../vmm/cli/balloon.js";
import { answer, ControlServer } from "../../vmm/sdk/control.js";
import { GuestControls, unlessEnded, type ControlledVm } from "../../vmm/sdk/guest-controls.js";
import { pause, resume } from "../../vmm/cli/pause.js";
import type { Snapshot, SnapshotOptions } from "../../vmm/snapshot/create.js";
import { UsageError } from "../../vmm/cli/usage-error.js";
import { ConfigError, HostError, SnapshotError, VmStateError } from "../../vmm/errors.js";

const folder = mkdtempSync(join(tmpdir(), "vmlet-control-"));
const path = join(folder, "socket");

/** Takes its time over a pause, as a VM does. */
class FakeVm implements ControlledVm {
  state: ControlledVm["state"] = "running";
  readonly targets: number[] = [];
  readonly calls: string[] = [];
  setBalloon(targetMib: number): void {
    if (targetMib > 128) throw new ConfigError([`Balloon of ${String(targetMib)} is too many`]);
    this.targets.push(targetMib);
  }
  async pause(): Promise<void> {
    this.calls.push("pausing");
    await new Promise((resolve) => setTimeout(resolve, 30));
    if (this.state === "stopped") throw new VmStateError("pause", "stopped", "has ended");
    this.state = "paused";
    this.calls.push("paused");
  }
  resume(): void {
    if (this.state === "stopped") throw new VmStateError("resume", "stopped", "has ended");
    this.state = "running";
    this.calls.push("running");
  }
  stop(): void {
    this.calls.push("stopped");
  }
}

const saved: Snapshot = { id: "0".repeat(32), bytes: 5000, pausedMs: 12.5 };

describe("control socket", () => {
  let vm: FakeVm;
  let controls: GuestControls;
  let server: ControlServer;

  beforeEach(() => {
    vm = new FakeVm();
    controls = new GuestControls();
    controls.begin(vm);
    server = ControlServer.listen(path, controls);
  });
  afterEach(() => server.close());
  after(() => rmSync(folder, { recursive: true }));

  /** What comes back, and the end of the connection. */
  async function send(text: string): Promise<string> {
    const socket = createConnection(path).setEncoding("utf8");
    let reply = "";
    socket.on("data", (chunk: string) => (reply += chunk));
    socket.write(text);
    await once(socket, "close");
    return reply;
  }

  it("sets the balloon, for its owner alone, and is gone afterwards", async () => {
    assert.equal(statSync(path).mode & 0o777, 0o600);
    assert.equal(await balloon([path, "64"]), 0);
    assert.equal(await balloon([path, "0"]), 0);
    assert.deepEqual(vm.targets, [64, 0]);
    server.close();
    assert.equal(existsSync(path), false);
  });

  it("takes a line that comes in pieces, and the first one only", async () => {
    const socket = createConnection(path).setEncoding("utf8");
    const closed = once(socket, "close");
    let reply = "";
    socket.on("data", (chunk: string) => (reply += chunk));
    for (const piece of ['{"balloon', '_mib":7', '}\n{"balloon_mib":8}\n']) {
      socket.write(piece);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    await closed;
    assert.deepEqual([reply, vm.targets], ['{"ok":true}\n', [7]]);
  });

  it("says what is wrong in one error", async () => {
    await assert.rejects(
      balloon([path, "129"]),
      (error) => error instanceof ConfigError && error.message === "Balloon of 129 is too many",
    );
    const wrong: [line: string, reply: RegExp][] = [
      ["hello", /^Not JSON: hello$/],
      ["7", /^Unknown request 7; known are/],
      ["null", /^Unknown request null/],
      ["{}", /^Unknown request \{\}/],
      ['{"stop":true}', /^Unknown request/],
      ['{"balloon_mib":1,"x":2}', /^Unknown request/],
      ['{"toString":true}', /^Unknown request/],
      ['{"pause":1}', /^pause 1 is not true$/],
      ['{"pause":true,"resume":true}', /^Unknown request/],
      ['{"balloon_mib":"1"}', /^balloon_mib "1" is not a number$/],
    ];
    for (const [line, pattern] of wrong) {
      const reply = await answer(line, controls);
      assert.ok("error" in reply && pattern.test(reply.error), JSON.stringify(reply));
    }
    assert.match(await send("x".repeat(9000)), /at most 8192 bytes/);
    assert.deepEqual(vm.targets, []);
  });

  it("answers a pause when it has happened; what is asked meanwhile waits", async () => {
    const paused = pause([path]);
    const state = send('{"state":true}\n');
    await paused;
    assert.equal(vm.state, "paused");
    assert.equal(await state, '{"ok":true,"state":"paused"}\n');
    const [again, , last] = await Promise.all([pause([path]), resume([path]), send('{"state":true}\n')]);
    assert.deepEqual([again, last], [0, '{"ok":true,"state":"running"}\n']);
    assert.deepEqual(vm.calls, ["pausing", "paused", "pausing", "paused", "running"]);
  });

  it("what is asked before the VM runs is done then", async () => {
    const early = new GuestControls();
    const paused = early.pause();
    const toggled = early.togglePause();
    assert.deepEqual(vm.calls, []);
    early.begin(vm);
    await paused;
    assert.equal(await toggled, "running");
  });

  it("a snapshot: what is asked for, and what comes back", async () => {
    const asked: [string, SnapshotOptions][] = [];
    const own = new GuestControls();
    own.begin(vm, (folder, options) => {
      asked.push([folder, options]);
      if (folder === "/full") return Promise.reject(new SnapshotError("/full: no space left on the device (ENOSPC)"));
      return Promise.resolve(saved);
    });
    const made = { ok: true, id: saved.id, bytes: 5000, paused_ms: 12.5 };
    assert.deepEqual(await answer('{"snapshot":{"folder":"/a"}}', own), made);
    assert.deepEqual(await answer('{"snapshot":{"folder":"/b","resume":false,"mode":"full"}}', own), made);
    assert.deepEqual(vm.calls, []);
    assert.deepEqual(await answer('{"snapshot":{"folder":"/c","stop":true}}', own), made);
    assert.deepEqual(vm.calls, ["stopped"]);
    assert.deepEqual(asked, [
      ["/a", { resume: undefined, base: undefined, watch: undefined }],
      ["/b", { resume: false, base: undefined, watch: undefined }],
      ["/c", { resume: false, base: undefined, watch: undefined }],
    ]);
    const over = '{"snapshot":{"folder":"/d","base":"/c","mode":"diff","watch":true,"stop":true}}';
    assert.deepEqual(await answer(over, own), made);
    assert.deepEqual(asked.pop(), ["/d", { resume: false, base: "/c", watch: true }]);
    vm.calls.pop();
    assert.deepEqual(await answer('{"snapshot":{"folder":"/full","stop":true}}', own), {
      error: "/full: no space left on the device (ENOSPC)",
    });
    assert.deepEqual(vm.calls, ["stopped"]);
    const wrong: [value: string, reason: RegExp][] = [
      ["true", /^snapshot true is not an object$/],
      ["[]", /^snapshot \[\] is not an object$/],
      ["{}", /^snapshot: folder undefined is not an absolute path$/],
      ['{"folder":"a"}', /^snapshot: folder "a" is not an absolute path$/],
      ['{"folder":"/a\\u0000"}', /is not an absolute path$/],
      ['{"folder":"/a","resume":1}', /^snapshot: resume 1 is not true or false$/],
      ['{"folder":"/a","stop":"yes"}', /^snapshot: stop "yes" is not true or false$/],
      ['{"folder":"/a","mode":"half"}', /^snapshot: mode "half" is not full or diff$/],
      ['{"folder":"/a","mode":"diff"}', /^snapshot: mode diff needs a base$/],
      ['{"folder":"/a","mode":"full","base":"/b"}', /^snapshot: mode full has no base$/],
      ['{"folder":"/a","base":"b"}', /^snapshot: base "b" is not an absolute path$/],
      ['{"folder":"/a","watch":1}', /^snapshot: watch 1 is not true or false$/],
      ['{"folder":"/a","path":"/b"}', /^snapshot: unknown "path"; known are/],
      ['{"folder":"/a","resume":true,"stop":true}', /contradict each other$/],
    ];
    for (const [value, reason] of wrong) {
      const reply = await answer(`{"snapshot":${value}}`, own);
      assert.ok("error" in reply && reason.test(reply.error), JSON.stringify(reply));
    }
    assert.equal(asked.length, 4);
  });

  it("a guest that has ended: an answer for all that wait", async () => {
    const waiting = send('{"pause":true}\n');
    while (!vm.calls.includes("pausing")) await new Promise((resolve) => setTimeout(resolve, 1));
    vm.state = "stopped";
    server.close();
    assert.equal(await waiting, '{"error":"The guest has ended"}\n');
    assert.deepEqual(await answer('{"resume":true}', controls), { error: "The guest has ended" });
    await assert.rejects(pause([]), UsageError);
    await assert.rejects(resume([path, "x"]), UsageError);
  });

  it("for signals and keys: a guest that has ended is no news, anything else is a line", async () => {
    const said: string[] = [];
    const report = (line: string): void => void said.push(line);
    unlessEnded(Promise.resolve(), report);
    unlessEnded(Promise.reject(new VmStateError("pause", "stopped", "has ended")), report);
    unlessEnded(Promise.reject(new SnapshotError("The guest cannot be paused: vda")), report);
    await new Promise((resolve) => setTimeout(resolve, 5));
    assert.deepEqual(said, ["The guest cannot be paused: vda"]);
  });

  it("a client that only goes disturbs nobody", async () => {
    createConnection(path).destroy();
    const half = createConnection(path);
    half.write('{"balloon');
    half.destroy();
    assert.equal(await balloon([path, "5"]), 0);
    assert.deepEqual(vm.targets, [5]);
  });

  it("vmlet balloon: usage, and nobody there", async () => {
    for (const argv of [[], [path], [path, "-1"], [path, "1.5"], [path, "1", "2"]]) {
      await assert.rejects(balloon(argv), UsageError, argv.join(" "));
    }
    await assert.rejects(
      balloon([join(folder, "none"), "1"]),
      (error) => error instanceof HostError && /none: nobody answers: .*\(ENOENT\)$/.test(error.message),
    );
  });

  it("vmlet balloon: a socket is a path, whatever it looks like; what answers there may be anything", async () => {
    // Once a TCP port.
    await assert.rejects(balloon(["80", "5"]), /Control socket 80: nobody answers: .*\(ENOENT\)/);
    await assert.rejects(balloon(["x".repeat(200), "5"]), /a path of 200 bytes; 107 fit/);
    await assert.rejects(balloon([folder, "5"]), HostError);
    for (const reply of ["", "null\n", "hello\n", "[]\n", '{"error":5}\n', "x".repeat(100_000)]) {
      const other = join(folder, "other");
      const stranger = createServer((socket) =>
        socket
          .on("error", () => undefined)
          .resume()
          .end(reply),
      ).listen(other);
      await assert.rejects(balloon([other, "5"]), /no answer|another program than vmlet answers there/, reply);
      await new Promise((resolve) => stranger.close(resolve));
    }
  });

  it("the end of one VM leaves the socket of another that has taken the path", () => {
    rmSync(path);
    const second = ControlServer.listen(path, controls);
    server.close();
    assert.equal(existsSync(path), true);
    second.close();
    assert.equal(existsSync(path), false);
    writeFileSync(path, "a file of somebody's");
    second.close();
    assert.equal(existsSync(path), true);
    rmSync(path);
  });

  it("a socket that a killed VM has left is taken over; one that is in use, or a file, is not", () => {
    const cureAt = (at: string): string => {
      try {
        ControlServer.listen(at, controls).close();
      } catch (error) {
        if (error instanceof HostError) return error.cure ?? "";
        throw error;
      }
      return "none";
    };
    assert.match(cureAt(path), /another program listens there/);
    const left = join(folder, "it's left");
    const dies = `require("node:net").createServer().listen(process.argv[1], () => process.kill(process.pid, 9))`;
    spawnSync(process.execPath, ["-e", dies, left]);
    assert.equal(existsSync(left), true);
    assert.equal(cureAt(left), "none");
    assert.equal(existsSync(left), false);
    assert.match(cureAt("/etc/passwd"), /it is no socket/);
  });

  it("a path that is taken is left alone", () => {
    const taken = join(folder, "file");
    writeFileSync(taken, "mine");
    assert.throws(() => ControlServer.listen(taken, controls), /control socket .*file: exists already/);
    assert.equal(existsSync(taken), true);
  });
});
