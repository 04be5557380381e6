// Needs: a /dev/kvm of any kind that boots a guest. The agent over what a guest has without shared memory: vsock, a virtio
// console, a serial line. One guest has the first two, another the third.
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Agent } from "../../vmm/agent/agent.js";
import { AgentConnection } from "../../vmm/agent/connection.js";
import { SocketTransport } from "../../vmm/agent/socket-transport.js";
import { consoleParameter, OWN_KERNEL_CMDLINE } from "../../vmm/config/defaults.js";
import { resolveConfig } from "../../vmm/config/resolve.js";
import type { VmConfig } from "../../vmm/config/types.js";
import { defaultInitrd, fastKernel } from "../../vmm/host/guest-files.js";
import { timeLimit } from "../../vmm/host/time-limit.js";
import { Vm } from "../../vmm/machine/vm.js";
import { AgentLink } from "../../vmm/sdk/agent-link.js";
import { createSnapshot } from "../../vmm/snapshot/create.js";
import { becomeAnother } from "../../vmm/snapshot/identity.js";
import { OpenSnapshot } from "../../vmm/snapshot/restore.js";
import { allOpeners } from "../../vmm/virtio/attach/all.js";
import { deviceSupport } from "../../vmm/virtio/device-support.js";
import { countBoot } from "../helpers/booted.js";
import { whyNoKvm } from "../helpers/kvm-guard.js";
import { skip } from "../helpers/skip.js";

const BOOT_LIMIT_MS = 200_000;
const OPTIONS = { deviceSupport: deviceSupport(allOpeners) };
const PORT = 1024;

/** What the agent does is the same, whatever carries it. `bytes`: so many go each way. */
async function useAgent(agent: Agent, bytes: number, commands = 3): Promise<void> {
  const input = randomBytes(bytes);
  const copied = await agent.run(["sh", "-c", "tee /dev/stderr; exit 7"], { stdin: input });
  assert.equal(copied.exitCode, 7);
  assert.ok(copied.stdoutBytes.equals(input), "standard output has the bytes of the input");
  assert.ok(copied.stderrBytes.equals(input), "standard error, too");
  const killed = await agent.run(["sh", "-c", "echo last >&2; kill -TERM $$"]);
  assert.deepEqual([killed.signal, killed.stdout, killed.stderr], ["SIGTERM", "", "last\n"]);
  const words = Array.from({ length: commands }, (_, i) => `word ${String(i)}`);
  const many = await Promise.all(words.map((word) => agent.run(["cat"], { stdin: word })));
  assert.deepEqual(
    many.map(({ stdout }) => stdout),
    words,
  );
  const seated = await agent.exec(["sh", "-c", "stty size; read -r line; stty size; echo $line"], {
    terminal: { rows: 11, columns: 77 },
  });
  let screen = "";
  seated.stdout.setEncoding("latin1").on("data", (text: string) => {
    if (screen === "") {
      seated.resize(33, 99);
      seated.stdin.write("typed\r");
    }
    screen += text;
  });
  assert.equal((await seated.exit).exitCode, 0);
  assert.match(screen, /^11 77\r\n(typed\r\n)33 99\r\ntyped\r\n$/);
  await agent.files.write("/tmp/file", input);
  assert.ok((await agent.files.read("/tmp/file")).equals(input));
  await assert.rejects(agent.files.read("/tmp/none"), { errnoName: "ENOENT" });
}

describe("boot: the agent over other ways than shared memory", function () {
  this.timeout(2 * BOOT_LIMIT_MS);
  let folder = "";
  const vms: Vm[] = [];
  const closing: (() => void)[] = [];

  before(function () {
    const reason = whyNoKvm();
    if (reason !== undefined) skip(this, reason);
    folder = mkdtempSync(join(tmpdir(), "vmlet-links-"));
  });
  afterEach(async () => {
    for (const close of closing.splice(0)) close();
    for (const vm of vms.splice(0)) await vm.close();
  });
  after(() => {
    if (folder !== "") rmSync(folder, { recursive: true, force: true });
  });

  const helloLimitMs = timeLimit("a guest's agent", BOOT_LIMIT_MS);
  /** A kernel that is emulated takes its time for every 16 bytes of a console. */
  const patience = { helloLimitMs, silenceMs: 60_000, answerLimitMs: 60_000 };

  function build(link: AgentLink, words: string, more: Partial<VmConfig>): Vm {
    const config = resolveConfig({
      kernel: fastKernel(),
      initrd: defaultInitrd(),
      cmdline: `${consoleParameter("serial")} ${OWN_KERNEL_CMDLINE} ${words}`,
      bareCmdline: true,
      quiet: true,
      memoryMib: 128,
      ...more,
    });
    const vm = Vm.build(config, link.host, { ...OPTIONS, mayBeSaved: true });
    vms.push(vm);
    countBoot();
    return vm;
  }

  /** Where a guest's agent calls by vsock: each call is a conversation of its own. */
  async function listen(path: string): Promise<() => Promise<Agent>> {
    const calls: Socket[] = [];
    let called = (): void => undefined;
    const server = createServer((socket) => {
      calls.push(socket.pause());
      called();
    });
    server.listen(`${path}_${String(PORT)}`);
    await once(server, "listening");
    closing.push(() => server.close());
    return async () => {
      while (calls.length === 0) await new Promise<void>((done) => (called = done));
      const connection = new AgentConnection(new SocketTransport(calls.shift()?.resume() as Socket), patience);
      closing.push(() => {
        connection.close();
      });
      await connection.ready;
      return new Agent(connection);
    };
  }

  it("vsock and a virtio console in one guest, each whole; a clone calls its own host anew, and ends what was the other's", async () => {
    const path = join(folder, "vsock");
    const nextCall = await listen(path);
    const console = new AgentLink({ way: "terminal" });
    const vm = build(console, `vmlet.agent=vsock:${String(PORT)}`, { console: "virtio", vsock: { cid: 3, path } });
    const ends = console.start(vm);
    const first = await nextCall();
    await useAgent(first, 200_000, 6);
    // In a session of its own: it lives on without the connection that has started it.
    await first.run(["sh", "-c", "setsid /init agent /dev/hvc0 >/dev/null 2>&1 </dev/null &"]);
    const onConsole = console.connect(vm, { ...patience, asksFirst: true });
    await useAgent(onConsole, 5000);

    const running = await first.exec(["sleep", "1000"]);
    const saved = join(folder, "saved");
    await createSnapshot(vm, saved, { resume: true });
    const snapshot = OpenSnapshot.open(saved);
    closing.push(() => {
      snapshot.close();
    });
    const otherPath = join(folder, "other");
    const otherCall = await listen(otherPath);
    const otherConsole = new AgentLink({ way: "terminal" });
    const clone = snapshot.restore(otherConsole.host, OPTIONS, { vsock: { path: otherPath } });
    vms.push(clone);
    becomeAnother(clone);
    const cloneEnds = otherConsole.start(clone);
    const other = await otherCall();
    await assert.rejects(other.files.stat(`/proc/${String(running.pid)}`), { errnoName: "ENOENT" });
    const input = randomBytes(20_000);
    assert.ok((await other.run(["cat"], { stdin: input })).stdoutBytes.equals(input));
    const later = otherConsole.connect(clone, { ...patience, asksFirst: true });
    assert.equal((await later.run(["echo", "another host"])).stdout, "another host\n");
    // The guest that was saved has noticed nothing.
    assert.equal((await first.run(["echo", "the same host"])).stdout, "the same host\n");
    assert.equal((await onConsole.run(["echo", "the same"])).stdout, "the same\n");
    running.cancel();
    // The socket of vsock stays until the VM is closed.
    const off = [other.guest.powerOff(5), first.guest.powerOff(6)];
    assert.deepEqual([(await cloneEnds).exitStatus, (await ends).exitStatus], [5, 6]);
    await assert.rejects(onConsole.run(["true"]), { code: "ERR_AGENT", reason: "gone" });
    await Promise.all([vm.close(), clone.close()]);
    await Promise.all(off);
    await assert.rejects(first.run(["true"]), { code: "ERR_AGENT", reason: "gone" });
  });

  it("a guest without shared memory speaks by its serial line, and the host hears that", async () => {
    let said = "";
    const link = new AgentLink({ terminal: (bytes) => (said += Buffer.from(bytes).toString("latin1")) });
    const vm = build(link, "vmlet.agent", {});
    const agent = link.connect(vm, patience);
    const ends = link.start(vm);
    await agent.connection.ready;
    assert.equal(link.way, "terminal", said);
    // What the kernel has to say does not come between the agent's bytes.
    await agent.files.write("/dev/kmsg", "<1>a message of the kernel's\n");
    await useAgent(agent, 20_000);
    await agent.guest.powerOff(4);
    assert.deepEqual((await ends).exitStatus, 4);
  });
});
