// Needs: nothing; 4 MiB of memory. The owner of the devices makes them quiet, saves and restores them: a disk over a file,
// on Node's own event loop, and a device that echoes.
import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { StateError, StateReader } from "../../devices/state.js";
import { VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_S_OK } from "../../devices/virtio/block/constants.js";
import { VIRTIO_MMIO_QUEUE_NOTIFY } from "../../devices/virtio/constants.js";
import { VIRTIO_MMIO_REGISTER_WORDS } from "../../devices/virtio/mmio-transport.js";
import { resolveConfig } from "../../vmm/config/resolve.js";
import { DiskError } from "../../vmm/errors.js";
import { MappedGuestMemory } from "../../vmm/memory/guest-memory.js";
import { VmShared } from "../../vmm/vcpu/shared.js";
import { attachDisks } from "../../vmm/virtio/attach/disks.js";
import { DeviceHost, type DeviceFactory } from "../../vmm/virtio/device-host.js";
import { DeviceLoop } from "../../vmm/virtio/device-loop.js";
import { RegisterCalls } from "../../vmm/virtio/register-calls.js";
import { VIRTIO_PORT_WORDS, VirtioPort } from "../../vmm/virtio/virtio-port.js";
import { EchoDevice } from "../helpers/echo-device.js";
import { assertMutationsRefused } from "../helpers/mutated-state.js";
import { VirtioDriver } from "../helpers/virtio-driver.js";

const REQUEST = 0x20_0000;
const DATA = 0x21_0000;
const DISK_BYTES = 1 << 20;

describe("device-host: state", function () {
  this.timeout(20_000);

  const memory = MappedGuestMemory.map(0x40_0000);
  const folder = mkdtempSync(join(tmpdir(), "vmlet-host-"));
  const path = join(folder, "disk");
  const closers: (() => void)[] = [];
  after(() => {
    memory.unmap();
    rmSync(folder, { recursive: true });
  });
  beforeEach(() => writeFileSync(path, Buffer.alloc(DISK_BYTES, 7)));
  afterEach(() => {
    for (const close of closers.splice(0)) close();
  });

  interface Machine {
    readonly host: DeviceHost;
    readonly echo: EchoDevice;
    readonly failures: unknown[];
    readonly loop: DeviceLoop;
    interrupts: number;
    /** The devices' windows as a vCPU sees them. */
    readonly ports: readonly VirtioPort[];
    close(): void;
  }

  function machine(): Machine {
    const echo = new EchoDevice();
    const undo: (() => void)[] = [];
    const config = resolveConfig({ kernel: "k", disks: [{ path, lock: false }] });
    const factories: DeviceFactory[] = [
      ...attachDisks(config, (close) => undo.push(close)),
      { name: "echo", create: () => echo },
    ];
    const shared = VmShared.create(1, factories.length * VIRTIO_PORT_WORDS);
    const failures: unknown[] = [];
    const hooks = {
      wakeOwner: () => undefined,
      alarm: () => undefined,
      failed: (error: unknown) => failures.push(error),
    };
    const loop = new DeviceLoop(hooks);
    const words = (device: number): Int32Array<SharedArrayBuffer> =>
      shared.deviceWords(device * VIRTIO_PORT_WORDS, VIRTIO_PORT_WORDS);
    const host = new DeviceHost({
      devices: factories.map((factory) => ({
        factory,
        interrupt: { trigger: () => result.interrupts++ },
        registers: new Int32Array(VIRTIO_MMIO_REGISTER_WORDS),
      })),
      memory,
      shared,
      vcpus: 1,
      words,
      loop,
      report: () => undefined,
      consoleHost: { transmit: () => true, roomAvailable: () => undefined },
      events: undefined,
    });
    const calls = new RegisterCalls(shared, 0, () => {
      host.service();
    });
    // Notifications only leave their mark: `quiesce` finds them.
    const ports = factories.map((_, device) => new VirtioPort(device, words(device), calls, () => undefined));
    const close = (): void => {
      host.close();
      for (const each of undo.splice(0)) each();
    };
    closers.push(close);
    const result: Machine = { host, echo, failures, loop, interrupts: 0, ports, close };
    return result;
  }

  function restored(state: unknown): Machine {
    const other = machine();
    other.host.restore(new StateReader(JSON.parse(JSON.stringify(state)), "devices"));
    return other;
  }

  function diskDriver(m: Machine): VirtioDriver {
    const [port] = m.ports;
    assert.ok(port !== undefined);
    return new VirtioDriver(port, memory);
  }

  it("requests that were only notified are carried out once, are on the disk, and the queue goes on elsewhere", async () => {
    const m = machine();
    const [queue] = diskDriver(m).start({ features: [VIRTIO_BLK_F_FLUSH] });
    assert.ok(queue !== undefined);
    const request = (sector: number, byte: number, type: number): number => {
      memory.slice(DATA, 512).fill(byte);
      memory.writeU32(REQUEST, type);
      memory.writeU64(REQUEST + 8, BigInt(sector));
      memory.writeU8(REQUEST + 16, 0xaa);
      return queue.add([
        { gpa: REQUEST, length: 16 },
        { gpa: DATA, length: 512, writable: type === 0 },
        { gpa: REQUEST + 16, length: 1, writable: true },
      ]);
    };
    const written = request(5, 0x55, 1);
    m.ports[0]?.write(VIRTIO_MMIO_QUEUE_NOTIFY, 4, 0);
    await m.host.quiesce();
    assert.deepEqual(queue.collect(), [{ id: written, length: 1 }]);
    assert.equal(memory.readU8(REQUEST + 16), VIRTIO_BLK_S_OK);
    const state = m.host.save();
    m.close();
    assert.equal(readFileSync(path)[5 * 512], 0x55);

    const other = restored(state);
    assert.deepEqual(other.host.save(), state);
    const read = request(5, 0, 0);
    other.host.unquiesce();
    await other.host.quiesce();
    assert.deepEqual(queue.collect(), [{ id: read, length: 513 }]);
    assert.equal(memory.readU8(DATA + 511), 0x55);
    other.host.unquiesce();
    assert.deepEqual([m.failures, other.failures], [[], []]);
    assert.ok(other.interrupts > 0);
  });

  it("what is notified while all is quiet waits for its end", async () => {
    const m = machine();
    const [, port] = m.ports;
    assert.ok(port !== undefined);
    const [queue] = new VirtioDriver(port, memory).start();
    assert.ok(queue !== undefined);
    await m.host.quiesce({ flush: false });
    queue.add([{ gpa: DATA, length: 4 }]);
    port.write(VIRTIO_MMIO_QUEUE_NOTIFY, 4, 0);
    m.host.service();
    assert.equal(queue.collect().length, 0);
    m.host.unquiesce();
    assert.equal(queue.collect().length, 1);
  });

  it("a disk that cannot be flushed lets its guest be paused, and not be saved", async () => {
    const m = machine();
    Object.assign(m.echo, { flush: () => Promise.reject(new StateError("echo0", "cannot be saved: EIO")) });
    await m.host.quiesce();
    assert.throws(
      () => m.host.save(),
      (error) => error instanceof DiskError && error.message === "echo0 cannot be saved: EIO",
    );
    m.host.unquiesce();
    Object.assign(m.echo, { flush: () => Promise.resolve() });
    await m.host.quiesce();
    assert.deepEqual(Object.keys(m.host.save()), ["vda", "echo"]);
  });

  it("a defect in a device that is waited for ends the wait", async () => {
    const m = machine();
    Object.assign(m.echo, { quiesce: () => new Promise(() => undefined) });
    const quiet = m.host.quiesce();
    m.loop.guard(() => {
      throw new TypeError("a defect");
    });
    await quiet;
    assert.match(String(m.failures[0]), /a defect/);
  });

  it("a disk that was written to is refused, with the reason", async () => {
    const m = machine();
    await m.host.quiesce();
    const state = m.host.save();
    m.close();
    writeFileSync(path, Buffer.alloc(DISK_BYTES, 8));
    assert.throws(
      () => restored(state),
      (error) => error instanceof DiskError && error.message.includes("it was written to at "),
    );
  });

  it("other devices, or another one of a name, are refused", async () => {
    const m = machine();
    await m.host.quiesce();
    const { vda, echo } = m.host.save();
    assert.throws(() => restored({ vda }), /^StateError: devices lacks "echo"$/);
    assert.throws(() => restored({ vda, echo, vdb: vda }), /^StateError: devices has an unknown field "vdb"$/);
    assert.throws(
      () => restored({ vda: echo, echo }),
      /^StateError: devices\.vda\.type 42 is not the type of this device, 2$/,
    );
  });

  it("every field that is missing, unknown, of another type or off its limits is refused with its path", async () => {
    const m = machine();
    diskDriver(m).start();
    await m.host.quiesce();
    const other = machine();
    assertMutationsRefused(m.host.save(), "devices", (changed) => {
      try {
        other.host.restore(new StateReader(changed, "devices"));
      } catch (error) {
        if (error instanceof StateError || !(error instanceof DiskError)) throw error;
      }
    });
  });
});
