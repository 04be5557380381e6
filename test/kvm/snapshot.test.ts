// Needs: a /dev/kvm of any kind; as root, also a full disk. Snapshots of guests of a few instructions: what they have in
// registers and memory is what it was, and a snapshot that cannot be made leaves guest and folder as they were.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import {
  createSnapshot,
  createVm,
  deleteSnapshot,
  inspectSnapshot,
  openSnapshot,
  SnapshotError,
  VmStateError,
  type StartOptions,
  type Machine,
  type VmExit,
} from "../../vmm/index.js";
import { collectOutput, type CollectedOutput } from "../helpers/collected-output.js";
import { ACPI_GPE0_PORT, GENERATION_ID_GPA, SERIAL0_PORT } from "../../vmm/memory/layout.js";
import { whyNoKvm } from "../helpers/kvm-guard.js";
import { asm, miniKernel, type MiniKernel } from "../helpers/mini-kernel.js";
import { settledResources } from "../helpers/own-resources.js";
import { start, type Running } from "../helpers/program.js";
import { assertCounts, runCountingCycles } from "../helpers/snapshot-cycles.js";
import { skip } from "../helpers/skip.js";

const u32 = (value: number): number[] => [0, 8, 16, 24].map((shift) => (value >>> shift) & 0xff);

/** A guest that runs, and what it has written. */
interface Counting {
  readonly vm: Machine;
  readonly run: Promise<VmExit>;
  readonly output: CollectedOutput;
}

describe("kvm: snapshots", function () {
  this.timeout(120_000);
  let folder: string;
  let kernel: MiniKernel;
  const vms: Machine[] = [];
  const at = (name: string): string => join(folder, name);

  before(function () {
    const reason = whyNoKvm();
    if (reason !== undefined) skip(this, reason);
    folder = mkdtempSync(join(tmpdir(), "vmlet-snapshots-"));
    kernel = miniKernel(asm.countInMemory());
  });
  afterEach(async () => {
    for (const vm of vms.splice(0)) await vm.close();
  });
  after(() => {
    kernel.remove();
    rmSync(folder, { recursive: true });
  });

  function boot(cpus = 1, options?: StartOptions): Counting {
    const output = collectOutput();
    const vm = createVm({ kernel: kernel.path, memoryMib: 32, cpus }, output.host);
    vms.push(vm);
    return { vm, run: vm.start(options), output };
  }

  async function end({ vm, run }: Counting): Promise<void> {
    vm.stop();
    assert.equal((await run).outcome, "killed");
    await vm.close();
  }

  for (const [cpus, cycles] of [
    [1, 12],
    [2, 4],
  ] as const) {
    it(`${String(cycles)} times saved and gone on, ${String(cpus)} vCPUs: not one instruction is lost or done twice`, async () => {
      const before = await settledResources();
      await runCountingCycles(kernel.path, at(`cycles-${String(cpus)}`), cpus, cycles);
      const after = await settledResources();
      // Threads are kept for the next VM.
      assert.deepEqual({ ...after, threads: 0, eventLoop: [] }, { ...before, threads: 0, eventLoop: [] });
    });
  }

  it("clones go on by themselves, all from the same point, and so does the guest that was saved", async () => {
    const path = at("clones");
    const original = boot();
    await original.output.until(500);
    const { bytes, pausedMs, id } = await createSnapshot(original.vm, path);
    assert.equal(original.vm.state, "running");
    assert.ok(bytes > 0 && bytes < 2 ** 21 && pausedMs > 0, JSON.stringify({ bytes, pausedMs }));
    assert.equal(statSync(path).mode & 0o777, 0o700);
    const opened = openSnapshot(path);
    assert.deepEqual([opened.id, opened.config.memoryMib, opened.config.kernel], [id, 32, kernel.path]);
    const clones = Array.from({ length: 5 }, () => {
      const output = collectOutput();
      const vm = opened.restore(output.host);
      vms.push(vm);
      return { vm, output, run: vm.start() };
    });
    await Promise.all(clones.map(({ output }) => output.until(1000)));
    for (const clone of clones) await end(clone);
    const length = original.output.bytes().length;
    await original.output.until(length + 1000);
    await end(original);
    assertCounts(original.output.bytes());
    const [first = 0] = clones[0]?.output.bytes() ?? [];
    for (const { output } of clones) assertCounts(output.bytes(), first);
    opened.close();
  });

  it("each guest that goes on has a generation of its own, and is told by ACPI if it has enabled that event", async () => {
    // Enables the event; then what it shows goes to the transmitter, over and over.
    const watching = miniKernel(asm.out(ACPI_GPE0_PORT + 1, 1), [
      ...[0xba, ...u32(ACPI_GPE0_PORT), 0xec], // mov edx, port; in al, dx
      ...[0xba, ...u32(SERIAL0_PORT), 0xee], // mov edx, port; out dx, al
      ...[0xeb, 0xf2], // jmp to the first
    ]);
    const output = collectOutput();
    const vm = createVm({ kernel: watching.path, memoryMib: 32 }, output.host);
    vms.push(vm);
    const run = vm.start();
    const generation = (name: string): string => {
      const [file = ""] = readdirSync(at(name)).filter((each) => each.startsWith("memory-"));
      return readFileSync(join(at(name), file)).toString("hex", GENERATION_ID_GPA, GENERATION_ID_GPA + 16);
    };
    try {
      await output.until(100);
      await createSnapshot(vm, at("generation"));
      await end({ vm, run, output });
      assert.ok(output.bytes().every((byte) => byte === 0));
      const opened = openSnapshot(at("generation"));
      for (const name of ["generation-1", "generation-2"]) {
        const own = collectOutput();
        const clone = opened.restore(own.host);
        vms.push(clone);
        const cloneRun = clone.start();
        await own.until(100);
        await createSnapshot(clone, at(name));
        await end({ vm: clone, run: cloneRun, output: own });
        // What it had read before goes out first.
        assert.ok(
          own
            .bytes()
            .subarray(1)
            .every((byte) => byte === 1),
        );
      }
      opened.close();
      const all = ["generation", "generation-1", "generation-2"].map(generation);
      assert.equal(new Set(all).size, 3);
      assert.ok(all.every((id) => /[1-9a-f]/.test(id)));
    } finally {
      watching.remove();
    }
  });

  it("a snapshot in place of another, and one of a clone in the folder that it came from", async () => {
    const path = at("replaced");
    const guest = boot();
    await guest.output.until(300);
    const first = await createSnapshot(guest.vm, path);
    const opened = openSnapshot(path);
    const second = await createSnapshot(guest.vm, path);
    assert.notEqual(first.id, second.id);
    assert.equal(readdirSync(path).length, 2);
    const output = collectOutput();
    const clone = opened.restore(output.host);
    vms.push(clone);
    const run = clone.start();
    await output.until(300);
    const third = await createSnapshot(clone, path);
    assert.equal(openedId(path), third.id);
    await end({ vm: clone, run, output });
    opened.close();
    await end(guest);
  });

  async function assertWholeOrNone(saving: Promise<unknown>, name: string): Promise<void> {
    const [result] = await Promise.allSettled([saving]);
    if (result.status === "fulfilled") openedId(at(name));
    else {
      assert.ok(result.reason instanceof SnapshotError || result.reason instanceof VmStateError, String(result.reason));
      assert.ok(!readdirSync(folder).includes(name));
    }
  }

  function openedId(path: string): string {
    const opened = openSnapshot(path);
    opened.close();
    return opened.id;
  }

  it("the VM is afterwards as it was, or as the caller wants it", async () => {
    const guest = boot();
    await guest.output.until(10);
    await createSnapshot(guest.vm, at("states"), { resume: false });
    assert.equal(guest.vm.state, "paused");
    await createSnapshot(guest.vm, at("states"));
    assert.equal(guest.vm.state, "paused");
    await createSnapshot(guest.vm, at("states"), { resume: true });
    assert.equal(guest.vm.state, "running");
    await end(guest);
    await assert.rejects(createSnapshot(guest.vm, at("late")), VmStateError);
    assert.deepEqual(readdirSync(folder).includes("late"), false);
  });

  it("a wrong argument is a ConfigError that names it, and nothing is made", async () => {
    const guest = boot();
    await guest.output.until(10);
    const config = { code: "ERR_CONFIG" };
    for (const path of [undefined, "", 5, "a\0b", null]) {
      const wrong = path as unknown as string;
      await assert.rejects(createSnapshot(guest.vm, wrong), { ...config, message: /^Folder .* is not a path$/ });
      for (const use of [openSnapshot, inspectSnapshot, deleteSnapshot]) assert.throws(() => use(wrong), config);
    }
    const options: [options: unknown, message: RegExp][] = [
      [null, /^Snapshot options null is not an object$/],
      [{ resume: 1 }, /^Snapshot options: resume 1 is not true or false$/],
      [{ stop: true }, /^Snapshot options: unknown option "stop"; known are resume, base, watch, note$/],
    ];
    for (const [wrong, message] of options) {
      await assert.rejects(createSnapshot(guest.vm, at("wrong"), wrong as object), { ...config, message });
    }
    assert.ok(!existsSync(at("wrong")));
    await createSnapshot(guest.vm, at("right"));
    await end(guest);
    const opened = openSnapshot(at("right"));
    const overrides: [overrides: unknown, message: RegExp][] = [
      [null, /^Overrides null is not an object$/],
      [{ disk: {} }, /^Overrides: unknown option "disk"; known are disks, nets, shares, vsock, hostName$/],
      [{ disks: ["x"] }, /^Overrides: disks .* is not an object$/],
      [{ disks: { vda: "x" } }, /^The saved guest has no disk "vda"; it has no disk$/],
      [{ nets: { net0: null } }, /^Overrides: net0 null is not an object$/],
      [{ vsock: { path: "x" } }, /^The saved guest has no socket device$/],
    ];
    for (const [wrong, message] of overrides) {
      assert.throws(() => opened.restore(collectOutput().host, wrong as object), { ...config, message });
    }
    assert.throws(() => opened.restore(undefined as never), config);
    opened.close();
  });

  it("resumed, stopped or closed while it is saved: the snapshot is whole, or none", async () => {
    const guest = boot();
    await guest.output.until(300);
    await guest.vm.pause();
    const saving = createSnapshot(guest.vm, at("resumed"));
    guest.vm.resume();
    await saving;
    assert.equal(guest.vm.state, "running");
    await guest.output.until(guest.output.bytes().length + 300);
    const stopped = createSnapshot(guest.vm, at("stopped"));
    await guest.vm.pause();
    guest.vm.stop();
    await assertWholeOrNone(stopped, "stopped");
    await guest.run;
    assertCounts(guest.output.bytes());
    const other = boot();
    await other.output.until(300);
    const closed = createSnapshot(other.vm, at("closed"));
    await other.vm.pause();
    await Promise.all([assertWholeOrNone(closed, "closed"), other.vm.close()]);
    const never = createVm({ kernel: kernel.path, memoryMib: 32 }, collectOutput().host);
    vms.push(never);
    await assert.rejects(createSnapshot(never, at("never")), VmStateError);
    assert.ok(!readdirSync(folder).includes("never"));
    openedId(at("resumed"));
  });

  it("two that save to one folder at once: one does, the other is told, and both guests go on", async () => {
    const path = at("contended");
    const [a, b] = [boot(), boot()];
    await Promise.all([a.output.until(300), b.output.until(300)]);
    const results = await Promise.allSettled([createSnapshot(a.vm, path), createSnapshot(b.vm, path)]);
    const refused = results.flatMap((result) => (result.status === "rejected" ? [String(result.reason)] : []));
    assert.equal(refused.length, 1);
    assert.match(refused[0] ?? "", /another vmlet is writing or removing a snapshot there/);
    openedId(path);
    for (const guest of [a, b]) {
      await guest.output.until(guest.output.bytes().length + 300);
      await end(guest);
      assertCounts(guest.output.bytes());
    }
  });

  /** A program whose guest is saved again and again; it says so each time. */
  function saveAgainAndAgain(path: string): Running {
    const program = `
      import { createSnapshot, createVm } from ${JSON.stringify(resolve("build/vmm/index.js"))};
      const vm = createVm({ kernel: ${JSON.stringify(kernel.path)}, memoryMib: 32 }, { output: (_, done) => setImmediate(done) });
      vm.start().then((exit) => console.error(exit), (error) => console.error(error));
      console.log("up");
      for (;;) console.log((await createSnapshot(vm, ${JSON.stringify(path)})).id);`;
    writeFileSync(at("saver.mjs"), program);
    return start([process.execPath, at("saver.mjs")]);
  }

  it("opened while another process replaces it: it is one or the other", async () => {
    const path = at("replacing");
    const saver = saveAgainAndAgain(path);
    await saver.until("up\n");
    while (!existsSync(join(path, "state.json")) && saver.child.exitCode === null && saver.child.signalCode === null) {
      await new Promise((done) => setTimeout(done, 10));
    }
    const seen = new Set<string>();
    for (const end = performance.now() + 3000; performance.now() < end;) {
      seen.add(openedId(path));
      inspectSnapshot(path);
      await new Promise((done) => setImmediate(done));
    }
    saver.child.kill("SIGKILL");
    const { stderr } = await saver.ended;
    assert.ok(seen.size > 1, stderr);
  });

  it("killed in the middle, at any moment: the snapshot before is there, or the new one, never half of one", async () => {
    const path = at("killed");
    const left = new Set<number>();
    // When exactly a process dies is luck: on, until it has died in the middle.
    for (let round = 0; round < 15 || (!left.has(3) && round < 200); round++) {
      const saver = saveAgainAndAgain(path);
      // The first of all is killed before there is any.
      await saver.until("up");
      await new Promise((done) => setTimeout(done, (round % 15) * 13 + Math.floor(round / 15)));
      saver.child.kill("SIGKILL");
      const ids = (await saver.ended).stdout.split("\n").slice(1, -1);
      if (!existsSync(join(path, "state.json"))) {
        assert.deepEqual(ids, []);
        continue;
      }
      left.add(readdirSync(path).length);
      const { id, memory } = inspectSnapshot(path, { verify: true });
      assert.ok(memory.isVerified);
      // The last that it has told of, or the next one.
      assert.ok(!ids.slice(0, -1).includes(id));
    }
    assert.ok(left.has(3), "never killed in the middle");
    const guest = boot();
    const { id } = await createSnapshot(guest.vm, path);
    await end(guest);
    assert.deepEqual([openedId(path), readdirSync(path).length], [id, 2]);
    deleteSnapshot(path);
    assert.ok(!existsSync(path));
  });

  it("a full disk is one clear error: the guest goes on, the snapshot before stays, nothing is left", async function () {
    if (process.geteuid?.() !== 0) skip(this, "only root can mount a small file system");
    const disk = at("disk");
    mkdirSync(disk);
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=2m", "tmpfs", disk]);
    try {
      const guest = boot();
      await guest.output.until(600);
      const path = join(disk, "a/snapshot");
      const { id } = await createSnapshot(guest.vm, path);
      const before = readdirSync(path);
      for (let filled = 0; filled < 3; filled++) {
        execFileSync("sh", [
          "-c",
          `head -c ${String(300_000 + 150_000 * filled)} /dev/urandom >${disk}/filler${String(filled)} 2>/dev/null || true`,
        ]);
        const refused = async (to: string): Promise<void> => {
          await assert.rejects(createSnapshot(guest.vm, to), (error) => {
            assert.ok(error instanceof SnapshotError, String(error));
            assert.equal(error.message, `${to}: the snapshot cannot be written: no space left on the device (ENOSPC)`);
            return true;
          });
        };
        if (filled === 0) continue;
        await refused(path);
        await refused(join(disk, "b/new"));
        assert.equal(guest.vm.state, "running");
        assert.deepEqual(readdirSync(path), before);
        assert.equal(readdirSync(disk).includes("b"), false);
      }
      assert.equal(openedId(path), id);
      await guest.output.until(guest.output.bytes().length + 300);
      await end(guest);
      assertCounts(guest.output.bytes());
    } finally {
      execFileSync("umount", ["-l", disk]);
    }
  });
});
