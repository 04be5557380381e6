// Needs: nothing. A thread in a system call, as in KVM_RUN, comes out of it when somebody connects.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { libc } from "../../vmm/sys/koffi.js";
import { listenForOwner } from "../../vmm/virtio/backends/unix-listener.js";

const POLL_MS = 60_000;
/** Connects when this thread is in poll(2), and not before. */
const CONNECT = `
  const { readFileSync } = require("node:fs");
  const path = \`/proc/\${process.ppid}/task/\${process.ppid}/syscall\`;
  const wait = () => {
    const [number] = readFileSync(path, "latin1").split(" ");
    if (number !== "7") return setTimeout(wait, 5);
    require("node:net").connect(process.argv[1]).end("word");
  };
  wait();`;

describe("a connection that interrupts", function () {
  this.timeout(2 * POLL_MS);

  it("a thread that waits in the kernel hears it at once, and its event loop then has it", async () => {
    const folder = mkdtempSync(join(tmpdir(), "vmlet-kick-"));
    const server = createServer();
    const path = join(folder, "socket");
    const remove = listenForOwner(server, { what: "socket", path, interrupts: true });
    try {
      const child = spawn(process.execPath, ["-e", CONNECT, path], { stdio: ["ignore", "ignore", "inherit"] });
      const poll = libc.func("poll", "int", ["void *", "uint64_t", "int"]);
      const started = performance.now();
      const result = poll(null, 0, POLL_MS);
      assert.equal(result, -1);
      assert.ok(performance.now() - started < POLL_MS / 2);
      const [socket] = (await once(server, "connection")) as [NodeJS.ReadableStream];
      assert.equal(String((await once(socket, "data"))[0]), "word");
      const [status] = (await once(child, "exit")) as [number | null];
      assert.equal(status, 0);
    } finally {
      remove();
      server.close();
      rmSync(folder, { recursive: true });
    }
  });
});
