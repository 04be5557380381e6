// Needs: a /dev/kvm on which guests run, and a built program. Every method of Vm and VmPool in every state; many VMs of one
// process leave nothing in it.
import assert from "node:assert/strict";
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { timeLimit } from "../../vmm/host/time-limit.js";
import { Vm, VmPool, type VmmError } from "../../vmm/index.js";
import { countBoot } from "../helpers/booted.js";
import { makeBusyboxImage, whyNoBusybox } from "../helpers/busybox-image.js";
import { whyNoKvm } from "../helpers/kvm-guard.js";
import { childrenOfThis, useManyVms } from "../helpers/many-vms.js";
import { PROGRAM } from "../helpers/program.js";
import { skip } from "../helpers/skip.js";

/** Of a boot on a host that is busy with other tests. */
const LIMIT_MS = 240_000;
/** `make soak` starts 100. */
const MANY = 20;

describe("boot: VMs in every state", function () {
  this.timeout(LIMIT_MS);
  let folder = "";
  let image = "";
  const environment = { ...process.env };

  before(function () {
    const reason = whyNoKvm() ?? whyNoBusybox() ?? (existsSync(PROGRAM) ? undefined : "dist/vmlet.js is not built");
    if (reason !== undefined) skip(this, reason);
    folder = mkdtempSync(join(tmpdir(), "vmlet-states-"));
    process.env["VMLET_STATE"] = join(folder, "state");
    image = makeBusyboxImage(folder, ["/usr/bin/duk"]);
  });

  // One that has failed leaves none to those behind it.
  const opened: Vm[] = [];
  const own = async (starting: Promise<Vm>): Promise<Vm> => {
    const vm = await starting;
    opened.push(vm);
    return vm;
  };
  afterEach(() => Promise.all(opened.splice(0).map((vm) => vm.close())));

  after(() => {
    process.env = environment;
    if (folder !== "") rmSync(folder, { recursive: true, force: true });
  });

  const records = (): string[] => readdirSync(join(folder, "state")).filter((name) => name !== "names");
  const pidOf = ({ id }: Pick<Vm, "id">): number => {
    const record = JSON.parse(readFileSync(join(folder, "state", id, "vm.json"), "utf8")) as { owner: { pid: number } };
    return record.owner.pid;
  };

  /** Without the VM's variables, which may be too many. */
  const bare = { cleanEnv: true };

  /** All that a VM is asked for, and what each answers once it has ended. */
  const methods = (vm: Vm): Readonly<Record<string, () => Promise<unknown>>> => ({
    exec: async () => vm.exec(["true"], bare),
    lines: () => vm.exec(["true"], bare).lines().next(),
    process: () => vm.exec(["true"], bare).process(),
    read: () => vm.files.read("/etc/passwd"),
    write: () => vm.files.write("/tmp/file", "text"),
    readTree: () => vm.files.readTree("/etc").toArray(),
    copyIn: () => vm.files.copyIn(join(folder, "root/etc"), "/tmp/etc"),
    memory: () => vm.guest.memory(),
    pause: () => vm.pause(),
    resume: () => vm.resume(),
    snapshot: () => vm.snapshot(join(folder, "never")),
    clone: () => vm.clone(),
  });
  const ofMachine = new Set(["pause", "resume", "snapshot", "clone"]);

  async function assertOver(vm: Vm): Promise<void> {
    for (const [name, call] of Object.entries(methods(vm))) {
      await assert.rejects(call(), (error: VmmError) => {
        assert.equal(error.code, ofMachine.has(name) ? "ERR_VM_STATE" : "ERR_AGENT", `${name}: ${error.message}`);
        if (ofMachine.has(name)) assert.ok(error.message.startsWith(`${name}()`), error.message);
        return true;
      });
    }
    await vm.close();
    assert.throws(() => vm.stats(), { code: "ERR_VM_STATE" });
    assert.equal(existsSync(join(folder, "never")), false);
  }

  it("closed: what was under way ends with an error, what comes later is refused, a second close is none", async () => {
    const vm = await own(Vm.start({ image }));
    countBoot();
    const pending = [
      vm.exec(["sleep", "1000"]).result(),
      vm.guest.waitForPort(9),
      vm.files.readStream("/dev/zero").toArray(),
    ];
    const ends = Promise.allSettled(pending);
    await vm.exec(["true"]);
    await Promise.all([vm.close(), vm.close(), vm[Symbol.asyncDispose]()]);
    for (const end of await ends) {
      assert.equal(end.status, "rejected");
      assert.equal((end.reason as VmmError).code, "ERR_AGENT");
    }
    assert.deepEqual(await vm.ended, { exitCode: 137 });
    await assertOver(vm);
    assert.deepEqual(records(), []);
  });

  it("its process is killed: the same, with the signal as its end, and nothing of it is left", async () => {
    const vm = await own(Vm.start({ image }));
    const pending = assert.rejects(vm.exec(["sleep", "1000"]), { code: "ERR_AGENT" });
    await vm.exec(["true"]);
    process.kill(pidOf(vm), "SIGKILL");
    await pending;
    // Before its end is known, and after.
    await assert.rejects(vm.pause(), { code: "ERR_VM_STATE" });
    assert.deepEqual(await vm.ended, { exitCode: 137 });
    await assertOver(vm);
    assert.deepEqual(records(), []);
  });

  it("saved with its end, and turned off from inside: the same; what was saved goes on", async () => {
    const saved = join(folder, "saved");
    // Nearly as much as a command of the agent's may have, and more than a line of most files.
    const big = { A: "a".repeat(30_000), B: "\u{e9}\n".repeat(9000) };
    const vm = await own(Vm.start({ image, env: big }));
    await vm.files.write("/tmp/kept", "kept");
    await vm.snapshot(saved, { stop: true });
    await assert.rejects(vm.snapshot(join(folder, "never")), { code: "ERR_VM_STATE" });
    await vm.ended;
    await assertOver(vm);
    const another = await own(Vm.restore(saved, { hostName: "another" }));
    assert.equal(await another.files.readText("/tmp/kept"), "kept");
    assert.equal((await another.exec(["hostname"], { cleanEnv: true })).stdout, "another\n");
    // They are its own still.
    assert.equal(
      (await another.exec(["sh", "-c", 'printf %s $A | wc -c; printf %s "$B" | wc -c'])).stdout,
      "30000\n27000\n",
    );
    await another.guest.powerOff(3);
    await assert.rejects(another.pause(), { code: "ERR_VM_STATE" });
    assert.deepEqual(await another.ended, { exitCode: 3 });
    await assertOver(another);
    rmSync(saved, { recursive: true });
    await assert.rejects(Vm.restore(saved), { code: "ERR_SNAPSHOT" });
    assert.deepEqual(records(), []);
  });

  it("paused, twice, and all at once: each call has its turn", async () => {
    const vm = await own(Vm.start({ image }));
    await vm.pause();
    await vm.pause();
    const waiting = vm.exec(["echo", "late"]).result();
    const startedMs = performance.now();
    const isLate = { code: "ERR_EXEC", isTimeout: true };
    await Promise.all([
      assert.rejects(async () => vm.exec(["true"], { timeoutMs: 50 }), isLate),
      assert.rejects(vm.exec(["true"], { timeoutMs: 50 }).process(), isLate),
      assert.rejects(vm.guest.waitForPort(9, { timeoutMs: 50 }), { errnoName: "ETIMEDOUT" }),
      assert.rejects(vm.files.read("/etc/passwd", { signal: AbortSignal.timeout(50) }), { name: "TimeoutError" }),
    ]);
    assert.ok(performance.now() - startedMs < timeLimit("four refusals", 3000));
    const copy = await own(vm.clone());
    await copy.resume();
    assert.equal((await copy.exec(["echo", "copy"])).stdout, "copy\n");
    await copy.close();
    await vm.resume();
    await vm.resume();
    assert.equal((await waiting).stdout, "late\n");
    const saved = join(folder, "at-once");
    await Promise.all([vm.pause(), vm.snapshot(saved), vm.resume(), vm.exec(["true"]), vm.pause(), vm.resume()]);
    assert.equal((await vm.exec(["echo", "on"])).stdout, "on\n");
    await vm.close();
    assert.deepEqual(records(), []);
  });

  it("given up while it starts, at any moment: nothing is left once that is known", async () => {
    const startedMs = performance.now();
    await (await own(Vm.start({ image }))).close();
    const usualMs = performance.now() - startedMs;
    for (const part of [0, 0.1, 0.3, 0.5, 0.7, 0.9, 1]) {
      const signal = AbortSignal.timeout(Math.round(part * usualMs));
      // The last ones may be there before.
      const vm = await own(Vm.start({ image, signal })).catch((error: unknown) => error as Error);
      if (vm instanceof Vm) await vm.close();
      else assert.equal(vm.name, "TimeoutError", String(part));
      assert.deepEqual([records(), childrenOfThis()], [[], []], String(part));
    }
  });

  it("a pool: bad options at once, a failed start to whoever waits, a taker that gives up, a close in the middle", async () => {
    assert.throws(() => new VmPool({ image, memoryMib: -1 }, { size: 1 }), { code: "ERR_CONFIG" });
    assert.throws(() => new VmPool({ image }, { size: 0 }), { code: "ERR_CONFIG" });
    const bad = new VmPool({ image: join(folder, "none.tar") }, { size: 1 });
    await assert.rejects(bad.take(), { code: "ERR_IMAGE" });
    await assert.rejects(bad.filled(), { code: "ERR_IMAGE" });
    await Promise.all([bad.close(), bad.close()]);
    await using pool = new VmPool({ image }, { size: 1 });
    const abort = new AbortController();
    const [first, given] = [pool.take(), pool.take({ signal: abort.signal })];
    abort.abort(new Error("enough"));
    await assert.rejects(given, /enough/);
    await assert.rejects(pool.take({ signal: abort.signal }), /enough/);
    const vm = await own(first);
    await pool.filled();
    assert.equal(pool.ready, 1);
    // One that ends while it waits is replaced before anybody asks.
    const [waits = ""] = records().filter((id) => id !== vm.id);
    await new Promise((done) => setTimeout(done, 1100));
    process.kill(pidOf({ id: waits }), "SIGKILL");
    const limitMs = performance.now() + timeLimit("another VM", 60_000);
    // Its record may go before this process hears of its end.
    const isAnother = (): boolean => pool.ready === 1 && records().some((id) => id !== waits && id !== vm.id);
    while (!isAnother() && performance.now() < limitMs) await new Promise((done) => setTimeout(done, 20));
    assert.equal(pool.ready, 1);
    const second = await own(pool.take());
    assert.notEqual(second.id, waits);
    const late = assert.rejects(pool.take(), { code: "ERR_VM_STATE" });
    await Promise.all([pool.close(), pool.close()]);
    await late;
    await pool.filled();
    await assert.rejects(pool.take(), { code: "ERR_VM_STATE" });
    assert.equal((await vm.exec(["echo", "mine"])).stdout, "mine\n", "what was taken is its taker's");
    await Promise.all([vm.close(), second.close()]);
    assert.deepEqual(records(), []);
  });

  it(`${String(MANY)} VMs, started, used and closed, leave no descriptor, thread, process, socket, file or mapping`, async () => {
    await useManyVms(image, MANY);
    assert.deepEqual(records(), []);
    assert.deepEqual(readdirSync(join(folder, "state", "names")), []);
  });
});
