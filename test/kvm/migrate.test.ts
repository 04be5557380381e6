// Needs: a /dev/kvm of any kind. A running guest moves to another monitor, without an instruction lost or done twice,
// and without a byte of its memory changed; if anything fails, it goes on where it was.
import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import {
  createVm,
  HostError,
  migrateVm,
  receiveVm,
  SnapshotError,
  VmStateError,
  type Machine,
  type VmConfig,
  type VmExit,
} from "../../vmm/index.js";
import { viewMemory } from "../../vmm/sys/memory.js";
import { parseMigrationAddress } from "../../vmm/snapshot/migration/address.js";
import { GuestListener } from "../../vmm/snapshot/migration/receive.js";
import { migrateVm as send } from "../../vmm/snapshot/migration/send.js";
import { collectOutput, type CollectedOutput } from "../helpers/collected-output.js";
import { whyNoKvm } from "../helpers/kvm-guard.js";
import { readDisk, readRequests, startDisk } from "../helpers/mini-driver.js";
import { asm, miniKernel, miniKernelWith, type MiniKernel } from "../helpers/mini-kernel.js";
import { ownResources, settledResources } from "../helpers/own-resources.js";
import { skip } from "../helpers/skip.js";

const TEXT = "The first sector";

interface Guest {
  readonly vm: Machine;
  readonly run: Promise<VmExit>;
  readonly output: CollectedOutput;
}

describe("kvm: migration", function () {
  this.timeout(60_000);
  let folder: string;
  let counting: MiniKernel;
  const vms: Machine[] = [];
  const at = (name: string): string => join(folder, name);

  before(async function () {
    const reason = whyNoKvm();
    if (reason !== undefined) skip(this, reason);
    folder = mkdtempSync(join(tmpdir(), "vmlet-migration-"));
    // What Node keeps open for good once a process has had sockets.
    const warm = createServer((socket) => socket.end()).listen(at("warm.sock"));
    await once(connect(at("warm.sock")).resume(), "close");
    await promisify(warm.close.bind(warm))();
    counting = miniKernel(asm.countInMemory());
  });
  afterEach(async () => {
    for (const vm of vms.splice(0)) await vm.close();
  });
  after(() => {
    counting.remove();
    rmSync(folder, { recursive: true });
  });

  function boot(config: Partial<VmConfig> = {}): Guest {
    const output = collectOutput();
    const vm = createVm({ kernel: counting.path, memoryMib: 32, ...config }, output.host);
    vms.push(vm);
    return { vm, run: vm.start(), output };
  }

  /** Bytes count up, without one lost or twice. */
  function assertCounts(bytes: Uint8Array, first = 1): void {
    const wrong = bytes.findIndex((byte, index) => byte !== ((first + index) & 0xff));
    assert.equal(wrong, -1, `byte ${String(wrong)} of ${String(bytes.length)}`);
  }

  async function memoryOf(vm: Machine): Promise<Buffer> {
    return vm.whileOpen(({ memory }) =>
      Promise.resolve(Buffer.from(new Uint8Array(viewMemory(memory.hostAddress, memory.size)))),
    );
  }

  for (const [kind, cpus] of [
    ["unix", 1],
    ["tcp", 1],
    ["unix", 2],
  ] as const) {
    it(`over ${kind}, ${String(cpus)} vCPUs, five times on: no instruction is lost or done twice, and nothing is left`, async () => {
      const before = await settledResources();
      const pieces: Uint8Array[] = [];
      let guest = boot({ cpus });
      for (let move = 0; move < 5; move++) {
        await guest.output.until(300);
        const output = collectOutput();
        const address = kind === "unix" ? `unix:${at("moves.sock")}` : "tcp:127.0.0.1:0";
        const receiver = await receiveVm(address, output.host, { threads: move % 2 === 0 ? "threads" : "main-first" });
        const { stopMs, bytes, rounds } = await migrateVm(guest.vm, receiver.address);
        assert.ok(rounds.length >= 2 && bytes > 0 && bytes < 64 * 2 ** 20 && stopMs > 0, JSON.stringify(rounds));
        assert.equal((await guest.run).outcome, "killed");
        pieces.push(guest.output.bytes());
        await guest.vm.close();
        const { vm, ended } = await receiver.received;
        vms.push(vm);
        guest = { vm, run: ended, output };
      }
      await guest.output.until(300);
      guest.vm.stop();
      await guest.run;
      await guest.vm.close();
      vms.splice(0);
      assertCounts(Buffer.concat([...pieces, guest.output.bytes()]));
      assert.deepEqual(await settledResources(), { ...before, eventLoop: ownResources().eventLoop });
    });
  }

  it("memory is the same to the last page, also what its devices have written while it was copied; its disk goes along", async () => {
    const image = at("disk.img");
    writeFileSync(image, TEXT.padEnd(64 * 1024, "."));
    const kernel = miniKernelWith(readRequests(), [startDisk(), readDisk(TEXT.length), asm.countInMemory()]);
    const guest = boot({ kernel: kernel.path, disks: [{ path: image }] });
    const listener = await GuestListener.listen(parseMigrationAddress(`unix:${at("disk.sock")}`));

    const moving = send(guest.vm, parseMigrationAddress(`unix:${at("disk.sock")}`));
    const software = await guest.vm.whileOpen(({ quirks }) => Promise.resolve(quirks !== undefined));
    const received = await listener.accept({ software });
    const output = collectOutput();
    const { deviceSupport } = await import("../../vmm/virtio/device-support.js");
    const { allOpeners } = await import("../../vmm/virtio/attach/all.js");
    const vm = received.restore(output.host, { deviceSupport: deviceSupport(allOpeners) });
    vms.push(vm);
    assert.equal(guest.vm.state, "paused");
    const stays = await memoryOf(guest.vm);
    const moved = await memoryOf(vm);
    const pages = Array.from({ length: stays.length / 4096 }, (_, page) => page).filter(
      (page) => stays.compare(moved, page * 4096, (page + 1) * 4096, page * 4096, (page + 1) * 4096) !== 0,
    );
    assert.deepEqual(pages, []);
    await received.takeOver();
    const run = vm.start();
    await moving;
    guest.vm.stop();
    await guest.run;
    await output.until(600);
    vm.stop();
    await run;
    const all = Buffer.concat([guest.output.bytes(), output.bytes()]);
    assert.equal(all.subarray(0, TEXT.length).toString(), TEXT);
    assertCounts(all.subarray(TEXT.length));
    kernel.remove();
  });

  it("refused, cut off, or nobody there: the guest goes on, and can move later; its disk is its own again", async () => {
    const image = at("kept.img");
    writeFileSync(image, TEXT.padEnd(64 * 1024, "."));
    const guest = boot({ disks: [{ path: image }] });
    await guest.output.until(300);
    await assert.rejects(migrateVm(guest.vm, `unix:${at("nobody.sock")}`), HostError);
    await assert.rejects(migrateVm(guest.vm, "tcp:127.0.0.1:1"), HostError);
    const other = at("other.img");
    writeFileSync(other, "another".padEnd(64 * 1024, "."));
    const address = `unix:${at("refusing.sock")}`;
    const missing = await receiveVm(address, collectOutput().host, { overrides: { disks: { vda: at("none.img") } } });
    await assert.rejects(migrateVm(guest.vm, address), /none.img: no such file/);
    await assert.rejects(missing.received, /none.img: no such file/);
    const wrong = await receiveVm(address, collectOutput().host, { overrides: { disks: { vda: other } } });
    await assert.rejects(migrateVm(guest.vm, address), /other.img: not as it was/);
    await assert.rejects(wrong.received, /other.img: not as it was/);
    const unknown = await receiveVm(address, collectOutput().host, { overrides: { disks: { vdz: other } } });
    await assert.rejects(migrateVm(guest.vm, address), /no disk "vdz"/);
    await assert.rejects(unknown.received, /no disk "vdz"/);
    assert.equal(guest.vm.state, "running");
    await guest.output.until(guest.output.bytes().length + 300);
    assert.throws(
      () => createVm({ kernel: counting.path, disks: [{ path: image }] }, collectOutput().host),
      /kept.img/,
    );
    // Paused before is paused after.
    await guest.vm.pause();
    await assert.rejects(migrateVm(guest.vm, `unix:${at("nobody.sock")}`), HostError);
    assert.equal(guest.vm.state, "paused");
    const output = collectOutput();
    const receiver = await receiveVm(address, output.host);
    await migrateVm(guest.vm, address);
    const { vm, ended } = await receiver.received;
    vms.push(vm);
    await output.until(300);
    vm.stop();
    await ended;
    assertCounts(Buffer.concat([guest.output.bytes(), output.bytes()]));
    await assert.rejects(migrateVm(guest.vm, address), VmStateError);
  });

  it("ended, closed or resumed while it moves: it is at one end, or at none", async () => {
    for (const how of ["stop", "close", "resume", "pause"] as const) {
      const guest = boot();
      await guest.output.until(300);
      const output = collectOutput();
      const address = `unix:${at(`${how}.sock`)}`;
      const receiver = await receiveVm(address, output.host);
      const moving = migrateVm(guest.vm, address);
      await new Promise((resolve) => setTimeout(resolve, 5));
      const closing = how === "close" ? guest.vm.close() : undefined;
      if (how === "stop") guest.vm.stop();
      if (how === "resume") guest.vm.resume();
      if (how === "pause") void guest.vm.pause().catch(() => undefined);
      const [moved] = await Promise.allSettled([moving]);
      const [received] = await Promise.allSettled([receiver.received]);
      assert.equal(moved.status, received.status);
      if (received.status === "fulfilled") {
        vms.push(received.value.vm);
        await output.until(300);
        received.value.vm.stop();
        await received.value.ended;
        assertCounts(Buffer.concat([guest.output.bytes(), output.bytes()]));
      } else {
        assert.ok(received.reason instanceof SnapshotError, String(received.reason));
        assert.deepEqual(output.bytes().length, 0);
      }
      await closing;
      if (guest.vm.state !== "closed") guest.vm.stop();
      await guest.run;
    }
  });
});
