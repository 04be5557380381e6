// Needs: nothing. The owner of the devices, with a device that echoes and a loop that the test turns.
import assert from "node:assert/strict";
import { VIRTIO_MMIO_QUEUE_NOTIFY, VIRTIO_MMIO_STATUS } from "../../devices/virtio/constants.js";
import { DeviceHost, type NotificationEvents } from "../../vmm/virtio/device-host.js";
import { VIRTIO_MMIO_REGISTER_WORDS } from "../../devices/virtio/mmio-transport.js";
import { DeviceLoop } from "../../vmm/virtio/device-loop.js";
import { MappedGuestMemory } from "../../vmm/memory/guest-memory.js";
import { RegisterCalls } from "../../vmm/virtio/register-calls.js";
import { VmShared } from "../../vmm/vcpu/shared.js";
import { VIRTIO_PORT_WORDS, VirtioPort } from "../../vmm/virtio/virtio-port.js";
import { EchoDevice } from "../helpers/echo-device.js";
import { FakeLoop } from "../helpers/fake-loop.js";
import { VirtioDriver } from "../helpers/virtio-driver.js";

interface Machine {
  readonly host: DeviceHost;
  readonly device: EchoDevice;
  readonly loop: FakeLoop;
  readonly deviceLoop: DeviceLoop;
  readonly failures: unknown[];
  /** What the monitor was asked for, such as "alarm 20". */
  readonly asked: string[];
  /** Windows whose acknowledgements nobody hears. */
  readonly silent: readonly number[];
  /** Callbacks of connected events, by "device.queue". */
  readonly events: Map<string, () => void>;
  /** The first window as vCPU `n` sees it; the owner looks whenever it is woken. */
  readonly port: (vcpu: number) => VirtioPort;
  isOwnerAwake: boolean;
  interrupts: number;
}

describe("device-host", () => {
  const memory = MappedGuestMemory.map(0x40_0000);
  after(() => memory.unmap());

  function machine(): Machine {
    const loop = new FakeLoop();
    const asked: string[] = [];
    const failures: unknown[] = [];
    const deviceLoop = new DeviceLoop(
      {
        wakeOwner: () => asked.push("come back"),
        alarm: (ms) => asked.push(`alarm ${String(ms)}`),
        failed: (error) => failures.push(error),
      },
      loop,
    );
    const shared = VmShared.create(2, 2 * VIRTIO_PORT_WORDS);
    const device = new EchoDevice();
    const events = new Map<string, () => void>();
    const silent: number[] = [];
    const source: NotificationEvents = {
      connect: (window, queue, notified) => events.set(`${String(window)}.${String(queue)}`, notified),
      connectTo: () => assert.fail("no device here is served elsewhere"),
      silenceAcknowledgements: (window) => silent.push(window),
      close: () => events.clear(),
    };
    const words = (window: number): Int32Array<SharedArrayBuffer> =>
      shared.deviceWords(window * VIRTIO_PORT_WORDS, VIRTIO_PORT_WORDS);
    const host = new DeviceHost({
      devices: [
        {
          factory: { name: "echo", create: () => device },
          interrupt: { trigger: () => result.interrupts++ },
          registers: new Int32Array(VIRTIO_MMIO_REGISTER_WORDS),
        },
        {
          factory: { name: "other", create: () => new EchoDevice() },
          interrupt: { trigger: () => undefined },
          registers: new Int32Array(VIRTIO_MMIO_REGISTER_WORDS),
        },
      ],
      memory,
      shared,
      vcpus: 2,
      words,
      loop: deviceLoop,
      report: () => undefined,
      consoleHost: { transmit: () => true, roomAvailable: () => undefined },
      events: source,
    });
    const wake = (): void => {
      if (result.isOwnerAwake) host.service();
    };
    const port = (vcpu: number): VirtioPort => new VirtioPort(0, words(0), new RegisterCalls(shared, vcpu, wake), wake);
    const result: Machine = {
      ...{ host, device, loop, deviceLoop, failures, asked, events, silent, port },
      isOwnerAwake: true,
      interrupts: 0,
    };
    return result;
  }

  it("a driver on a vCPU thread brings the device up and is served", () => {
    const { host, port, device } = machine();
    const [queue] = new VirtioDriver(port(1), memory).start();
    assert.ok(queue !== undefined);
    assert.deepEqual(device.events, ["reset", "activate"]);
    port(0).write(VIRTIO_MMIO_QUEUE_NOTIFY, 4, 1);
    assert.equal(device.events.at(-1), "available 1");
    assert.equal(host.counters()["echo"]?.["notifications"], 1);
    assert.deepEqual(Object.keys(host.counters()), ["echo", "other"]);
  });

  it("what was notified is served before what is asked afterwards", () => {
    const result = machine();
    const { port, device } = result;
    new VirtioDriver(port(0), memory).start();
    result.isOwnerAwake = false;
    port(0).write(VIRTIO_MMIO_QUEUE_NOTIFY, 4, 0);
    port(1).write(VIRTIO_MMIO_QUEUE_NOTIFY, 4, 1);
    result.isOwnerAwake = true;
    // A reset: the notifications before it still meet a live device.
    port(0).write(VIRTIO_MMIO_STATUS, 4, 0);
    assert.deepEqual(device.events.slice(-3), ["available 0", "available 1", "reset"]);
  });

  it("events stand for QueueNotify, one for each queue of each device", () => {
    const { host, port, device, events, silent } = machine();
    host.connectEvents();
    assert.deepEqual([...events.keys()], ["0.0", "0.1", "1.0", "1.1"]);
    assert.deepEqual(silent, [0, 1]);
    new VirtioDriver(port(0), memory).start();
    events.get("0.1")?.();
    assert.equal(device.events.at(-1), "available 1");
    host.close();
    assert.equal(events.size, 0);
    assert.equal(device.events.at(-1), "reset");
  });

  it("a defect in a device ends the VM instead of being lost in a callback", () => {
    const { host, port, device, events, failures } = machine();
    host.connectEvents();
    new VirtioDriver(port(0), memory).start();
    device.onAvailable = () => {
      throw new TypeError("a defect");
    };
    events.get("0.0")?.();
    assert.match(String(failures[0]), /a defect/);
    port(0).write(VIRTIO_MMIO_QUEUE_NOTIFY, 4, 0);
    // After that, no code of the devices runs any more.
    assert.equal(failures.length, 1);
  });
});

describe("device-loop", () => {
  it("brings the thread back for later turns and timers only while it runs a vCPU", () => {
    const asked: string[] = [];
    const failures: unknown[] = [];
    const loop = new FakeLoop();
    const deviceLoop = new DeviceLoop(
      {
        wakeOwner: () => asked.push("come back"),
        alarm: (ms) => asked.push(`alarm ${String(ms)}`),
        failed: (error) => failures.push(error),
      },
      loop,
    );
    const seen: string[] = [];
    deviceLoop.defer(() => seen.push("deferred"));
    deviceLoop.after(5, () => seen.push("timer"));
    assert.deepEqual(asked, []);
    deviceLoop.isMainPhase = true;
    deviceLoop.defer(() => {
      throw new Error("a defect");
    });
    deviceLoop.after(0.2, () => undefined);
    deviceLoop.after(700, () => undefined);
    const cancel = deviceLoop.after(1, () => seen.push("cancelled"));
    cancel();
    assert.deepEqual(asked, ["come back", "alarm 1", "alarm 20", "alarm 1"]);
    loop.settle();
    loop.advance(10);
    // Not the timer: after a failure, no code of the devices runs any more.
    assert.deepEqual([seen, failures.length], [["deferred"], 1]);
  });
});
