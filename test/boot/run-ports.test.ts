// Needs: a /dev/kvm on which guests run, a built program, busybox, gcc, passt. Ports of this host that lead to a VM's.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { findProgram } from "../../vmm/host/programs.js";
import { findHostPorts } from "../../vmm/sdk/host-ports.js";
import { StateFolder } from "../../vmm/sdk/state-folder.js";
import type { PublishedPort } from "../../vmm/sdk/vm-record.js";
import { countBoot } from "../helpers/booted.js";
import { compileProgram, makeBusyboxImage, whyNoBusybox } from "../helpers/busybox-image.js";
import { whyNoKvm } from "../helpers/kvm-guard.js";
import { PROGRAM } from "../helpers/program.js";
import { skip } from "../helpers/skip.js";
import { userNetProblem } from "../helpers/user-net-guard.js";

/** Of a boot on a host that is busy with other tests. */
const LIMIT_MS = 240_000;
const ANSWER_LIMIT_MS = 60_000;
/** More than all windows on its way hold, and not so much that a guest whose kernel is emulated takes long. */
const BYTES = 200_003;
const CONNECTIONS = 24;
const MEMORY = ["--memory", "128"];

describe("boot: published ports", function () {
  this.timeout(LIMIT_MS);
  let folder = "";
  let image = "";
  let state: StateFolder;
  const environment = { ...process.env };

  before(function () {
    const reason =
      whyNoKvm() ??
      (existsSync(PROGRAM) ? undefined : "dist/vmlet.js is not built") ??
      whyNoBusybox() ??
      (findProgram("gcc") === undefined ? "gcc is not installed" : undefined) ??
      userNetProblem();
    if (reason !== undefined) skip(this, reason);
    folder = mkdtempSync(join(tmpdir(), "vmlet-ports-"));
    process.env["VMLET_STATE"] = join(folder, "state");
    state = new StateFolder();
    image = makeBusyboxImage(folder, [], [compileProgram(folder, "serve")]);
  });

  after(() => {
    if (folder !== "") {
      for (const { name } of state.list()) vmlet(["rm", "--force", name]);
      rmSync(folder, { recursive: true, force: true });
    }
    process.env = environment;
  });

  const vmlet = (words: readonly string[]) =>
    spawnSync(PROGRAM, words, { encoding: "utf8", timeout: LIMIT_MS, killSignal: "SIGKILL" });

  async function start(name: string, ...options: string[]): Promise<readonly PublishedPort[]> {
    const { status, stderr } = vmlet(["run", "-d", "--name", name, ...MEMORY, ...options, image, "serve"]);
    assert.equal(status, 0, stderr);
    for (const end = performance.now() + ANSWER_LIMIT_MS; vmlet(["logs", name]).stdout !== "ready\n";) {
      assert.equal(state.find(name).status, "running");
      assert.ok(performance.now() < end, "it does not listen");
      await sleep(100);
    }
    return state.find(name).ports;
  }

  it("a VM's servers are reached: bytes both ways, half-closed connections, many at once, datagrams; a taken port is refused at once", async () => {
    const [fixed] = await findHostPorts([{ hostAddress: "127.0.0.1", hostPort: 0, guestPort: 7, protocol: "tcp" }]);
    assert.ok(fixed !== undefined);
    const echo = String(fixed.hostPort);
    const [first, counter, datagrams, nobody] = await start(
      "first",
      ...["-p", `${echo}:7`, "-p", "9", "-p", "127.0.0.1::7/udp", "-p", "0:10"],
    );
    countBoot();
    assert.ok(first && counter && datagrams && nobody);
    assert.equal(first.hostPort, fixed.hostPort);
    assert.match(vmlet(["ps"]).stdout, new RegExp(`127\\.0\\.0\\.1:${echo}->7/tcp, 127\\.0\\.0\\.1:\\d+->9/tcp, `));

    const bytes = randomBytes(BYTES);
    assert.ok((await exchange(first.hostPort, bytes)).equals(bytes));

    // Its end reaches the server, whose answer comes back after that.
    let sum = 0;
    for (const byte of bytes) sum = (sum * 31 + byte) % 2 ** 32;
    assert.equal((await exchange(counter.hostPort, bytes)).toString(), `${String(bytes.length)} ${String(sum)}\n`);
    assert.equal((await exchange(counter.hostPort, Buffer.alloc(0))).toString(), "0 0\n");

    const many = Array.from({ length: CONNECTIONS }, (_, at) => randomBytes(1000 + at));
    const answers = await Promise.all(many.map((one) => exchange(first.hostPort, one)));
    assert.ok(answers.every((answer, at) => answer.equals(many[at] ?? Buffer.alloc(0))));

    // One that goes without a word, and one that nobody answers, hold nothing up.
    (await connected(first.hostPort)).resetAndDestroy();
    assert.equal((await exchange(nobody.hostPort, Buffer.from("x"))).length, 0);
    assert.equal((await exchange(first.hostPort, Buffer.from("still there"))).toString(), "still there");

    assert.equal(await datagram(datagrams.hostPort, "a datagram"), "a datagram");

    const before = readdirSync(join(folder, "state")).sort();
    for (const options of [[], ["-d"]]) {
      const { status, stdout, stderr } = vmlet(["run", ...options, ...MEMORY, "-p", `${echo}:9`, image, "serve"]);
      assert.equal(status, 125);
      assert.equal(stdout, "");
      assert.match(
        stderr,
        new RegExp(`^vmlet: Port 127\\.0\\.0\\.1:${echo}/tcp of this host is taken\nvmlet: what helps: .*\n$`),
      );
    }
    // Before an image is looked for.
    const { stderr } = vmlet(["run", "-p", `${echo}:9`, join(folder, "none.tar"), "serve"]);
    assert.match(stderr, /is taken/);
    assert.deepEqual(readdirSync(join(folder, "state")).sort(), before);
  });

  it("a second VM has ports of its own; they are free once a VM has ended, or was killed", async () => {
    const [second] = await start("second", "-p", "7");
    assert.ok(second !== undefined);
    assert.ok(state.find("second").restored, "it goes on from the template of the first");
    const [first] = state.find("first").ports;
    assert.ok(first !== undefined);
    for (const { hostPort } of [first, second]) {
      assert.equal((await exchange(hostPort, Buffer.from("here"))).toString(), "here");
    }
    // Connections that are open do not keep it.
    const open = await connected(first.hostPort);
    const closed = ended(open.resume());
    assert.equal(vmlet(["stop", "--time", "0", "first"]).status, 0);
    await closed;
    await becomesFree(first);
    assert.equal((await exchange(second.hostPort, Buffer.from("here"))).toString(), "here");

    process.kill(state.find("second").owner.pid, "SIGKILL");
    const end = performance.now() + 10_000;
    while (passts(second.hostPort) > 0 && performance.now() < end) await sleep(20);
    assert.equal(passts(second.hostPort), 0);
    await becomesFree(second);
    assert.equal(state.find("second").status, "exited");
  });
});

/** What held it ends by itself, a moment after the VM. */
async function becomesFree(port: PublishedPort): Promise<void> {
  for (const end = performance.now() + ANSWER_LIMIT_MS; ;) {
    try {
      assert.deepEqual(await findHostPorts([port]), [port]);
      return;
    } catch (error) {
      if (performance.now() > end) throw error;
    }
    await sleep(50);
  }
}

async function connected(port: number): Promise<Socket> {
  const socket = connect({ port, host: "127.0.0.1", allowHalfOpen: true });
  await once(socket, "connect");
  return socket;
}

/** What comes back for it, until the other side ends. */
async function exchange(port: number, bytes: Uint8Array): Promise<Buffer> {
  const socket = await connected(port);
  const got: Buffer[] = [];
  socket.on("data", (piece: Buffer) => got.push(piece));
  socket.end(bytes);
  await ended(socket);
  return Buffer.concat(got);
}

/** A reset is an end, too. */
function ended(socket: Socket): Promise<void> {
  return new Promise((resolve, reject) => {
    const limit = setTimeout(() => {
      socket.destroy();
      reject(new Error("The connection has not ended"));
    }, ANSWER_LIMIT_MS);
    const end = (): void => {
      clearTimeout(limit);
      socket.destroy();
      resolve();
    };
    socket.on("end", end).on("error", end).on("close", end);
  });
}

/** A datagram may be lost, by a guest that is slow to ask for the other's address: sent again until there is an answer. */
async function datagram(port: number, text: string): Promise<string> {
  const socket = createSocket("udp4");
  const answer = once(socket, "message", { signal: AbortSignal.timeout(ANSWER_LIMIT_MS) }) as Promise<[Buffer]>;
  const again = setInterval(() => {
    socket.send(text, port, "127.0.0.1");
  }, 200);
  try {
    return (await answer)[0].toString();
  } finally {
    clearInterval(again);
    socket.close();
  }
}

/** How many run for the port. */
function passts(port: number): number {
  return readdirSync("/proc").filter((pid) => {
    try {
      return readFileSync(`/proc/${pid}/cmdline`, "latin1").includes(`\x00127.0.0.1/${String(port)}:`);
    } catch {
      return false;
    }
  }).length;
}
