// Needs: nothing. What is changed of a running VM's devices, over real files, with a driver that a test plays.
import assert from "node:assert/strict";
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { VIRTIO_BLK_S_OK, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT } from "../../devices/virtio/block/constants.js";
import {
  VIRTIO_MMIO_CONFIG,
  VIRTIO_MMIO_INT_CONFIG,
  VIRTIO_MMIO_INTERRUPT_STATUS,
} from "../../devices/virtio/constants.js";
import { VIRTIO_MMIO_REGISTER_WORDS } from "../../devices/virtio/mmio-transport.js";
import type { DiskConfig } from "../../vmm/config/disks.js";
import { resolveConfig } from "../../vmm/config/resolve.js";
import { ConfigError, DiskError } from "../../vmm/errors.js";
import { DeviceUpdates } from "../../vmm/machine/device-updates.js";
import { MappedGuestMemory } from "../../vmm/memory/guest-memory.js";
import { VmShared } from "../../vmm/vcpu/shared.js";
import { attachDisks } from "../../vmm/virtio/attach/disks.js";
import { attachRng } from "../../vmm/virtio/attach/rng.js";
import { DeviceHost } from "../../vmm/virtio/device-host.js";
import { DeviceLoop } from "../../vmm/virtio/device-loop.js";
import { VIRTIO_PORT_WORDS } from "../../vmm/virtio/virtio-port.js";
import type { DriverQueue } from "../helpers/driver-queue.js";
import { VirtioDriver } from "../helpers/virtio-driver.js";

const HEADER = 0x20_0000;
const DATA = 0x20_1000;
const STATUS = 0x2f_0000;
const SECTOR = 512;

describe("updates of devices", () => {
  let folder = "";
  const memory = MappedGuestMemory.map(0x40_0000);
  const open: (() => void)[] = [];

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "vmlet-updates-"));
  });
  afterEach(() => {
    for (const close of open.splice(0).reverse()) close();
    rmSync(folder, { recursive: true });
  });
  after(() => {
    memory.unmap();
  });

  /** A file whose sectors are all full of `byte`. */
  function image(name: string, sectors: number, byte: number): string {
    const path = join(folder, name);
    writeFileSync(path, new Uint8Array(sectors * SECTOR).fill(byte));
    return path;
  }

  function machine(...disks: DiskConfig[]) {
    const config = resolveConfig({ kernel: "k", disks, rng: true });
    const factories = [...attachDisks(config, (close) => open.push(close)), ...attachRng(config, () => undefined)];
    const failures: unknown[] = [];
    const log: string[] = [];
    const count = factories.length;
    const shared = VmShared.create(1, count * VIRTIO_PORT_WORDS);
    const interrupts = factories.map(() => 0);
    const host = new DeviceHost({
      devices: factories.map((factory, index) => ({
        factory,
        interrupt: { trigger: () => void (interrupts[index] = (interrupts[index] ?? 0) + 1) },
        registers: new Int32Array(VIRTIO_MMIO_REGISTER_WORDS),
      })),
      memory,
      shared,
      vcpus: 1,
      words: (device) => shared.deviceWords(device * VIRTIO_PORT_WORDS, VIRTIO_PORT_WORDS),
      loop: new DeviceLoop({
        wakeOwner: () => undefined,
        alarm: () => undefined,
        failed: (error) => failures.push(error),
      }),
      report: (line) => log.push(line),
      consoleHost: { transmit: () => true, roomAvailable: () => undefined },
      events: undefined,
    });
    open.push(() => host.close());
    const updates = new DeviceUpdates(config, host, (task) => {
      task();
    });
    const [transport] = host.registers;
    assert.ok(transport !== undefined);
    const driver = new VirtioDriver(transport, memory);
    const capacity = (): number =>
      transport.read(VIRTIO_MMIO_CONFIG, 4) + transport.read(VIRTIO_MMIO_CONFIG + 4, 4) * 2 ** 32;
    return { updates, host, driver, transport, failures, log, interrupts, capacity };
  }

  /** The status, once there is one; undefined after half a second without. */
  async function ask(
    driver: VirtioDriver,
    queue: DriverQueue,
    type: number,
    sector: number,
  ): Promise<number | undefined> {
    memory.writeU32(HEADER, type);
    memory.writeU64(HEADER + 8, BigInt(sector));
    memory.writeU8(STATUS, 0xaa);
    queue.add([
      { gpa: HEADER, length: 16 },
      { gpa: DATA, length: SECTOR, writable: type === VIRTIO_BLK_T_IN },
      { gpa: STATUS, length: 1, writable: true },
    ]);
    driver.notify(0);
    for (let tries = 0; tries < 100; tries++) {
      if (queue.collect().length > 0) return memory.readU8(STATUS);
      await sleep(5);
    }
    return undefined;
  }

  function started(driver: VirtioDriver): DriverQueue {
    const [queue] = driver.start();
    assert.ok(queue !== undefined);
    return queue;
  }

  /** Files in `folder` that this process has open, by their names. */
  function openFiles(): string[] {
    return readdirSync("/proc/self/fd")
      .flatMap((fd) => {
        try {
          return [readlinkSync(`/proc/self/fd/${fd}`)];
        } catch {
          return [];
        }
      })
      .filter((path) => path.startsWith(`${folder}/`))
      .map((path) => path.slice(folder.length + 1));
  }

  async function until(what: string, isSo: () => boolean): Promise<void> {
    for (let tries = 0; !isSo(); tries++) {
      assert.ok(tries < 200, what);
      await sleep(5);
    }
  }

  it("another file takes a disk's place: the driver hears of its size, reads it, and the old one is closed", async () => {
    const m = machine({ path: image("a", 8, 0x11) });
    const queue = started(m.driver);
    assert.equal(m.capacity(), 8);
    assert.equal(await ask(m.driver, queue, VIRTIO_BLK_T_IN, 0), VIRTIO_BLK_S_OK);
    assert.equal(memory.readU8(DATA), 0x11);
    const before = m.interrupts[0] ?? 0;
    m.updates.updateDisk("vda", { path: image("b", 1024, 0x22) });
    assert.equal(m.capacity(), 1024);
    assert.equal(m.interrupts[0], before + 1);
    assert.ok((m.transport.read(VIRTIO_MMIO_INTERRUPT_STATUS, 4) & VIRTIO_MMIO_INT_CONFIG) !== 0);
    assert.equal(await ask(m.driver, queue, VIRTIO_BLK_T_IN, 1000), VIRTIO_BLK_S_OK);
    assert.equal(memory.readU8(DATA), 0x22);
    memory.slice(DATA, SECTOR).fill(0x33);
    assert.equal(await ask(m.driver, queue, VIRTIO_BLK_T_OUT, 1023), VIRTIO_BLK_S_OK);
    assert.equal(readFileSync(join(folder, "b")).at(-1), 0x33);
    assert.ok(readFileSync(join(folder, "a")).every((byte) => byte === 0x11));
    await until("the old file is open", () => !openFiles().includes("a"));
    assert.deepEqual(openFiles(), ["b"]);
    assert.equal(m.updates.config.disks[0]?.path, join(folder, "b"));
    assert.deepEqual([m.failures, m.log], [[], []]);
  });

  it("a smaller disk refuses what lies behind its end; one without a driver has the new size for the one that comes", async () => {
    const m = machine({ path: image("a", 64, 0x11) });
    m.updates.updateDisk("vda", { path: image("b", 2, 0x22) });
    const queue = started(m.driver);
    assert.equal(m.capacity(), 2);
    assert.notEqual(await ask(m.driver, queue, VIRTIO_BLK_T_IN, 2), VIRTIO_BLK_S_OK);
    assert.equal(await ask(m.driver, queue, VIRTIO_BLK_T_IN, 1), VIRTIO_BLK_S_OK);
  });

  it("the same file again has its size read anew, and stays locked", async () => {
    const path = image("a", 8, 0x11);
    const m = machine({ path });
    const queue = started(m.driver);
    truncateSync(path, 16 * SECTOR);
    m.updates.updateDisk("vda", { path });
    assert.equal(m.capacity(), 16);
    assert.equal(await ask(m.driver, queue, VIRTIO_BLK_T_IN, 15), VIRTIO_BLK_S_OK);
    await until("both are open", () => openFiles().length === 1);
    assert.throws(() => machine({ path }), /attached already, by this process/);
  });

  it("the old file can be had by another once it is let go, the new one by nobody", async () => {
    const [a, b] = [image("a", 8, 0x11), image("b", 8, 0x22)];
    const m = machine({ path: a });
    started(m.driver);
    m.updates.updateDisk("vda", { path: b });
    await until("the old file is open", () => !openFiles().includes("a"));
    machine({ path: a });
    assert.throws(() => machine({ path: b }), /attached already, by this process/);
  });

  it("what cannot be a disk is refused, and nothing has changed", async () => {
    const m = machine({ path: image("a", 8, 0x11) }, { path: image("other", 8, 0x44) });
    const queue = started(m.driver);
    mkdirSync(join(folder, "folder"));
    writeFileSync(join(folder, "empty"), "");
    writeFileSync(join(folder, "odd"), new Uint8Array(700));
    writeFileSync(
      join(folder, "cow"),
      Buffer.concat([Buffer.from("QFI\xfb\0\0\0\x03", "latin1"), new Uint8Array(504)]),
    );
    const cases: (readonly [name: string, message: RegExp])[] = [
      ["folder", /a directory, not a disk image/],
      ["empty", /empty; a disk has at least one block/],
      ["odd", /not a multiple of the block size 512/],
      ["cow", /not a raw disk image/],
      ["missing", /no such file/],
      ["a/b", /a part of the path is not a directory/],
      ["other", /attached already, by this process/],
    ];
    const interrupts = m.interrupts[0];
    for (const [name, message] of cases) {
      assert.throws(
        () => m.updates.updateDisk("vda", { path: join(folder, name), rateLimiter: LIMIT }),
        (error) => error instanceof DiskError && message.test(error.message),
        name,
      );
    }
    assert.throws(() => m.updates.updateDisk("vda", { path: "/dev/null" }), /neither a file nor a block device/);
    const wrong: unknown[] = [
      { path: "" },
      { path: "a\0b" },
      { path: 1 },
      { other: 1 },
      null,
      { rateLimiter: { bandwidth: {} } },
    ];
    for (const update of wrong) assert.throws(() => m.updates.updateDisk("vda", update as object), ConfigError);
    assert.throws(() => m.updates.updateDisk("vdz", {}), /This VM has no disk "vdz"/);
    assert.throws(() => m.updates.updateDisk("rng0", {}), /This VM has no disk "rng0"/);
    assert.equal(m.interrupts[0], interrupts);
    assert.equal(m.capacity(), 8);
    assert.equal(await ask(m.driver, queue, VIRTIO_BLK_T_IN, 7), VIRTIO_BLK_S_OK);
    assert.deepEqual(openFiles().sort(), ["a", "other"]);
    assert.deepEqual(m.updates.config.disks[0]?.rateLimiter, undefined);
    assert.deepEqual(m.failures, []);
  });

  it("a read-only disk gets a file that may only be read", () => {
    const m = machine({ path: image("a", 8, 0x11), isReadonly: true });
    m.updates.updateDisk("vda", { path: image("b", 16, 0x22) });
    // Others may read it, too; a disk that is written could not be had twice.
    machine({ path: join(folder, "b"), isReadonly: true });
    assert.equal(m.capacity(), 16);
  });

  it("limits are changed one bucket at a time, and lifted", async () => {
    const m = machine({ path: image("a", 8, 0x11), rateLimiter: LIMIT });
    const queue = started(m.driver);
    assert.equal(await ask(m.driver, queue, VIRTIO_BLK_T_IN, 0), VIRTIO_BLK_S_OK);
    assert.equal(await ask(m.driver, queue, VIRTIO_BLK_T_IN, 0), undefined, "one operation an hour");
    const none = { size: 0, oneTimeBurst: 0, refillTimeMs: 0 };
    m.updates.updateDisk("vda", { rateLimiter: { bandwidth: none } });
    assert.equal(queue.collect().length, 0, "operations are limited as before");
    m.updates.updateDisk("vda", { rateLimiter: { operations: none } });
    assert.equal(queue.collect().length, 1, "what has waited goes on at once");
    for (let count = 0; count < 10; count++)
      assert.equal(await ask(m.driver, queue, VIRTIO_BLK_T_IN, 0), VIRTIO_BLK_S_OK);
    assert.deepEqual(plain(m.updates.config.disks[0]?.rateLimiter), { bandwidth: none, operations: none });
    const slow = { ...LIMIT.operations, size: 2 };
    m.updates.updateDisk("vda", { rateLimiter: { operations: slow } });
    assert.equal(await ask(m.driver, queue, VIRTIO_BLK_T_IN, 0), VIRTIO_BLK_S_OK);
    assert.equal(await ask(m.driver, queue, VIRTIO_BLK_T_IN, 0), VIRTIO_BLK_S_OK);
    assert.equal(await ask(m.driver, queue, VIRTIO_BLK_T_IN, 0), undefined);
    m.updates.updateRng({ bandwidth: slow });
    assert.deepEqual(plain(m.updates.config.rngRateLimiter), { bandwidth: slow });
  });
});

/** As it would be saved. */
function plain(value: unknown): unknown {
  return JSON.parse(JSON.stringify(value));
}

const LIMIT = { operations: { size: 1, oneTimeBurst: 0, refillTimeMs: 3_600_000 } };
