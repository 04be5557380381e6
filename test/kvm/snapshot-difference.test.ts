// Needs: a /dev/kvm of any kind. Differential snapshots: only what has changed is in them, and a guest that goes on from
// one has all of its memory.
import assert from "node:assert/strict";
import {
  cpSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  ConfigError,
  createSnapshot,
  createVm,
  inspectSnapshot,
  openSnapshot,
  SnapshotError,
  type Machine,
  type VmExit,
} from "../../vmm/index.js";
import { GENERATION_ID_GPA, GENERATION_ID_LENGTH } from "../../vmm/memory/layout.js";
import { decodeState, encodeState } from "../../vmm/snapshot/state-file.js";
import { viewMemory } from "../../vmm/sys/memory.js";

import { collectOutput, type CollectedOutput } from "../helpers/collected-output.js";
import { whyNoKvm } from "../helpers/kvm-guard.js";
import { asm, miniKernel, miniKernelWith, type MiniKernel } from "../helpers/mini-kernel.js";
import { ownResources, settledResources } from "../helpers/own-resources.js";
import { skip } from "../helpers/skip.js";
import type { State } from "../../devices/state.js";

interface Guest {
  readonly vm: Machine;
  readonly run: Promise<VmExit>;
  readonly output: CollectedOutput;
}

/** Nobody touches it: it is in no differential snapshot. */
const BALLAST = { gpa: 17 * 2 ** 20, bytes: new Uint8Array(6 * 2 ** 20).fill(7) };
const BALLAST_GPA = 24 * 2 ** 20;

describe("kvm: differential snapshots", function () {
  this.timeout(60_000);
  let folder: string;
  let kernel: MiniKernel;
  const vms: Machine[] = [];
  const at = (name: string): string => join(folder, name);

  before(function () {
    const reason = whyNoKvm();
    if (reason !== undefined) skip(this, reason);
    folder = mkdtempSync(join(tmpdir(), "vmlet-difference-"));
    kernel = miniKernelWith([{ ...BALLAST, gpa: BALLAST_GPA }], [asm.countInMemory()]);
  });
  afterEach(async () => {
    for (const vm of vms.splice(0)) await vm.close();
  });
  after(() => {
    kernel.remove();
    rmSync(folder, { recursive: true });
  });

  function boot(): Guest {
    const output = collectOutput();
    const vm = createVm({ kernel: kernel.path, memoryMib: 32 }, output.host);
    vms.push(vm);
    return { vm, run: vm.start(), output };
  }

  function restore(name: string): Guest & { readonly close: () => void } {
    const opened = openSnapshot(at(name));
    const output = collectOutput();
    const vm = opened.restore(output.host);
    vms.push(vm);
    return { vm, run: vm.start(), output, close: () => opened.close() };
  }

  async function end({ vm, run }: Guest): Promise<void> {
    vm.stop();
    await run;
    await vm.close();
  }

  /** Without its generation id: each VM that goes on has one of its own. */
  async function memoryOf(vm: Machine): Promise<Buffer> {
    return vm.whileOpen(({ memory }) => {
      const copy = Buffer.from(new Uint8Array(viewMemory(memory.hostAddress, memory.size)));
      return Promise.resolve(copy.fill(0, GENERATION_ID_GPA, GENERATION_ID_GPA + GENERATION_ID_LENGTH));
    });
  }

  /** The memory of a VM of the snapshot, which has not run. */
  async function savedMemory(name: string): Promise<Buffer> {
    const opened = openSnapshot(at(name));
    const vm = opened.restore(collectOutput().host);
    const memory = await memoryOf(vm);
    await vm.close();
    opened.close();
    return memory;
  }

  function used(name: string): number {
    const [file = ""] = readdirSync(at(name)).filter((entry) => entry.startsWith("memory-"));
    return statSync(join(at(name), file)).blocks * 512;
  }

  for (const watch of [false, true]) {
    it(`${watch ? "followed" : "compared"}: small, a chain of them has all of the memory, and the guest goes on`, async () => {
      const before = await settledResources();
      const name = (step: number): string => `chain-${String(watch)}-${String(step)}`;
      const guest = boot();
      await guest.output.until(50);
      const full = await createSnapshot(guest.vm, at(name(0)), { watch });
      assert.ok(full.bytes > BALLAST.bytes.length);
      let length = 0;
      for (let step = 1; step <= 3; step++) {
        await guest.output.until(guest.output.bytes().length + 20);
        await guest.vm.pause();
        // A page that becomes zero, and one that was.
        await guest.vm.whileOpen(({ memory }) => {
          memory.slice(BALLAST_GPA + step * 4096, 4096).fill(0);
          memory.noteWritten(BALLAST_GPA + step * 4096, 4096);
          memory.slice(0x30_0000 + step * 4096, 8).fill(step);
          memory.noteWritten(0x30_0000 + step * 4096, 8);
          return Promise.resolve();
        });
        const expected = await memoryOf(guest.vm);
        const made = await createSnapshot(guest.vm, at(name(step)), { base: at(name(step - 1)), watch });
        const { memory, id } = inspectSnapshot(at(name(step)), { verify: true });
        assert.equal(id, made.id);
        assert.deepEqual([memory.base?.folder, memory.isVerified], [at(name(step - 1)), true]);
        assert.ok((memory.base?.pages ?? 0) >= 3 && (memory.base?.pages ?? 0) < 300, String(memory.base?.pages));
        // Memory of the guest is most of a full one's; here it is the state file.
        assert.ok(used(name(step)) < 2 ** 21 && used(name(step)) < used(name(0)) / 3, String(used(name(step))));
        assert.ok((await savedMemory(name(step))).equals(expected));
        guest.vm.resume();
        ({ length } = guest.output.bytes());
      }
      await guest.output.until(length + 50);
      await end(guest);
      const clone = restore(name(3));
      await clone.output.until(300);
      // And one of a clone, over what it came from: it is known what it has made its own.
      await clone.vm.pause();
      const expected = await memoryOf(clone.vm);
      const { bytes } = await createSnapshot(clone.vm, at(name(4)), { base: at(name(3)), resume: true });
      assert.ok(bytes < 2 ** 21, String(bytes));
      assert.ok((await savedMemory(name(4))).equals(expected));
      // A full one of a guest that goes on from several files.
      await clone.vm.pause();
      const whole = await memoryOf(clone.vm);
      await createSnapshot(clone.vm, at(name(5)), { resume: true });
      assert.ok((await savedMemory(name(5))).equals(whole));
      await end(clone);
      clone.close();
      vms.splice(0);
      assert.deepEqual(await settledResources(), { ...before, eventLoop: ownResources().eventLoop });
    });
  }

  it("many short runs of pages, more than are mapped", async () => {
    const guest = boot();
    await guest.output.until(50);
    await createSnapshot(guest.vm, at("runs-full"), { resume: false });
    await guest.vm.whileOpen(({ memory }) => {
      for (let page = 0; page < 1500; page += 2) memory.writeU32(0x18_0000 * 2 + page * 4096, page + 1);
      return Promise.resolve();
    });
    const expected = await memoryOf(guest.vm);
    await createSnapshot(guest.vm, at("runs"), { base: at("runs-full") });
    assert.ok((await savedMemory("runs")).equals(expected));
    await end(guest);
  });

  it("a base that is not there, another, of another guest, cut, or the folder itself: refused with the reason", async () => {
    const guest = boot();
    await guest.output.until(50);
    const refused = async (base: string, to: string, reason: RegExp): Promise<void> => {
      const { state } = guest.vm;
      await assert.rejects(createSnapshot(guest.vm, to, { base }), (error) => {
        assert.ok(error instanceof SnapshotError, String(error));
        assert.match(error.message, reason);
        return true;
      });
      assert.equal(guest.vm.state, state);
    };
    await refused(at("nowhere"), at("new"), /nowhere: no such file or folder/);
    assert.ok(!readdirSync(folder).includes("new"));
    await createSnapshot(guest.vm, at("base"));
    await refused(at("base"), at("base"), /needs a folder of its own/);
    await createSnapshot(guest.vm, at("over"), { base: at("base") });
    await refused(at("over"), at("base"), /needs a folder of its own/);
    await assert.rejects(createSnapshot(guest.vm, at("x"), { base: 5 as unknown as string }), ConfigError);
    const small = miniKernel(asm.countInMemory());
    const other = createVm({ kernel: small.path, memoryMib: 64 }, collectOutput().host);
    vms.push(other);
    const otherRun = other.start();
    await assert.rejects(createSnapshot(other, at("other"), { base: at("base") }), /of a guest with 33554432 bytes/);
    assert.ok(!readdirSync(folder).includes("other"));
    other.stop();
    await otherRun;
    small.remove();

    const opens = (name: string, reason: RegExp): void => {
      assert.throws(
        () => openSnapshot(at(name)),
        (error) => {
          assert.ok(error instanceof SnapshotError, String(error));
          assert.match(error.message, reason);
          return true;
        },
      );
    };
    // Both moved together still fit.
    cpSync(folder, `${folder}-moved`, { recursive: true });
    openSnapshot(join(`${folder}-moved`, "over")).close();
    rmSync(`${folder}-moved`, { recursive: true });
    renameSync(at("base"), at("elsewhere"));
    opens("over", /over: needs its base, snapshot [0-9a-f]{32}: .*base: no such file/);
    cpSync(at("elsewhere"), at("base"), { recursive: true });
    await createSnapshot(guest.vm, at("base"));
    opens("over", /over: needs snapshot [0-9a-f]{32} as its base; .*base has [0-9a-f]{32}/);
    rmSync(at("base"), { recursive: true });
    cpSync(at("elsewhere"), at("base"), { recursive: true });
    openSnapshot(at("over")).close();
    const [memory = ""] = readdirSync(at("base")).filter((name) => name.startsWith("memory-"));
    truncateSync(join(at("base"), memory), 4096);
    opens("over", /has 4096 bytes; the guest's memory/);
    await end(guest);
  });

  it("what the state says of the base, changed in any way, is refused or harmless", async () => {
    const guest = boot();
    await guest.output.until(50);
    await createSnapshot(guest.vm, at("a"));
    await createSnapshot(guest.vm, at("b"), { base: at("a") });
    await end(guest);
    const path = join(at("b"), "state.json");
    const state = decodeState(readFileSync(path), path).value as State & { memory: State & { base: State } };
    const wrong: unknown[] = [
      null,
      [],
      {},
      { ...state.memory.base, more: 1 },
      ...["id", "folder", "pages"].flatMap((name) =>
        [null, "", 5, "x".repeat(5000), "../b", "\0", {}].map((value) => ({ ...state.memory.base, [name]: value })),
      ),
      { ...state.memory.base, pages: "////".repeat(100) },
      { ...state.memory.base, folder: "." },
    ];
    for (const base of wrong) {
      writeFileSync(path, encodeState({ ...state, memory: { ...state.memory, base: base as State } }));
      assert.throws(() => openSnapshot(at("b")), SnapshotError, JSON.stringify(base));
      // That one opens nothing else: where the base lies is any text to it.
      if ((base as { folder?: unknown } | null)?.folder === state.memory.base["folder"]) {
        assert.throws(() => inspectSnapshot(at("b")), SnapshotError, JSON.stringify(base));
      }
    }
    writeFileSync(path, encodeState(state));
    openSnapshot(at("b")).close();
  });
});
