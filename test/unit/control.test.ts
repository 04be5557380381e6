// Needs: nothing. The control socket, its protocol, and `vmlet balloon`.
import assert from "node:assert/strict";
import { once } from "node:events";
import { existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { createConnection } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { balloon } from "../../vmm/cli/balloon.js";
import { answer, ControlServer } from "../../vmm/cli/control.js";
import { UsageError } from "../../vmm/cli/usage-error.js";
import { ConfigError, HostError } from "../../vmm/errors.js";

const folder = mkdtempSync(join(tmpdir(), "vmlet-control-"));
const path = join(folder, "socket");

class FakeVm {
  readonly targets: number[] = [];
  setBalloon(targetMib: number): void {
    if (targetMib > 128) throw new ConfigError([`Balloon of ${String(targetMib)} is too many`]);
    this.targets.push(targetMib);
  }
}

describe("control socket", () => {
  let vm: FakeVm;
  let server: ControlServer;

  beforeEach(() => {
    vm = new FakeVm();
    server = ControlServer.listen(path, vm);
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
      ["7", /^Unknown request 7; known is/],
      ["null", /^Unknown request null/],
      ["{}", /^Unknown request \{\}/],
      ['{"stop":true}', /^Unknown request/],
      ['{"balloon_mib":1,"x":2}', /^Unknown request/],
      ['{"balloon_mib":"1"}', /^balloon_mib "1" is not a number$/],
    ];
    for (const [line, pattern] of wrong) {
      const reply = answer(line, vm);
      assert.ok("error" in reply && pattern.test(reply.error), JSON.stringify(reply));
    }
    assert.match(await send("x".repeat(5000)), /at most 4096 bytes/);
    assert.deepEqual(vm.targets, []);
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
      (error) => error instanceof HostError && /none: nobody answers \(ENOENT\)$/.test(error.message),
    );
  });

  it("a path that is taken is left alone", () => {
    const taken = join(folder, "file");
    writeFileSync(taken, "mine");
    assert.throws(() => ControlServer.listen(taken, vm), /control socket .*file: exists already/);
    assert.equal(existsSync(taken), true);
  });
});
