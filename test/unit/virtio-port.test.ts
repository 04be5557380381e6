// Needs: nothing. A virtio-mmio window as vCPU threads see it, and the calls to the owner of the devices.
import assert from "node:assert/strict";
import { Worker } from "node:worker_threads";
import type { AccessSize, BusDevice } from "../../devices/contracts.js";
import {
  VIRTIO_MMIO_CONFIG,
  VIRTIO_MMIO_INTERRUPT_ACK,
  VIRTIO_MMIO_INTERRUPT_STATUS,
  VIRTIO_MMIO_QUEUE_NOTIFY,
  VIRTIO_MMIO_STATUS,
} from "../../devices/virtio/constants.js";
import { RegisterCalls, answerRegisterCall } from "../../vmm/virtio/register-calls.js";
import { VmShared } from "../../vmm/vcpu/shared.js";
import { VIRTIO_PENDING_WORD, VIRTIO_PORT_WORDS, VirtioPort } from "../../vmm/virtio/virtio-port.js";

/** Remembers accesses; register at offset o reads 0xffff_0000 + o. */
class Registers implements BusDevice {
  readonly name = "registers";
  readonly log: string[] = [];

  read(offset: number, size: AccessSize): number {
    this.log.push(`r${offset.toString(16)}/${String(size)}`);
    return 0xffff_0000 + offset;
  }

  write(offset: number, size: AccessSize, value: number): void {
    this.log.push(`w${offset.toString(16)}/${String(size)}=${value.toString(16)}`);
  }
}

interface Port {
  readonly port: VirtioPort;
  readonly words: Int32Array<SharedArrayBuffer>;
  readonly second: Registers;
  wakes: number;
}

/** A port whose owner answers at once, on the same thread. */
function machine(): Port {
  const shared = VmShared.create(2, 2 * VIRTIO_PORT_WORDS);
  const words = shared.deviceWords(VIRTIO_PORT_WORDS, VIRTIO_PORT_WORDS);
  const second = new Registers();
  const wake = (): void => {
    result.wakes++;
    answerRegisterCall(shared.registerCall(1), [new Registers(), second]);
  };
  const port = new VirtioPort(1, words, new RegisterCalls(shared, 1, wake), wake);
  const result: Port = { port, words, second, wakes: 0 };
  return result;
}

describe("virtio-port", () => {
  it("a notification is a bit and a wake-up; queues that cannot be are ignored", () => {
    const result = machine();
    const { port, words, second } = result;
    for (const queue of [0, 2, 31, 2]) port.write(VIRTIO_MMIO_QUEUE_NOTIFY, 4, queue);
    for (const queue of [32, 0xffff_ffff]) port.write(VIRTIO_MMIO_QUEUE_NOTIFY, 4, queue);
    assert.equal((words[VIRTIO_PENDING_WORD] ?? 0) >>> 0, 0x8000_0005);
    assert.deepEqual([result.wakes, second.log], [4, []]);
  });

  it("everything else is asked of the owner, with device, offset, size and value as they are", () => {
    const { port, second } = machine();
    assert.equal(port.read(VIRTIO_MMIO_STATUS, 4), 0xffff_0070);
    assert.equal(port.read(VIRTIO_MMIO_CONFIG + 7, 1), 0xffff_0107);
    assert.equal(port.read(0xfff, 1), 0xffff_0fff);
    port.read(VIRTIO_MMIO_INTERRUPT_STATUS, 4);
    // Odd sizes of QueueNotify are for the device to refuse.
    port.write(VIRTIO_MMIO_INTERRUPT_ACK, 1, 1);
    port.write(VIRTIO_MMIO_QUEUE_NOTIFY, 2, 1);
    port.write(0xffc, 4, 0xffff_ffff);
    assert.deepEqual(second.log, ["r70/4", "r107/1", "rfff/1", "r60/4", "w64/1=1", "w50/2=1", "wffc/4=ffffffff"]);
  });
});

describe("register-calls", () => {
  /** Runs in a thread: `calls` reads of device 1, then posts their sum. */
  const script = `
    const { workerData, parentPort } = require("node:worker_threads");
    Promise.all([import(workerData.calls), import(workerData.shared)]).then(([{ RegisterCalls }, { VmShared }]) => {
      const shared = VmShared.attach(workerData.buffer, 2, 0);
      const calls = new RegisterCalls(shared, workerData.vcpu, () => parentPort.postMessage("wake"));
      let sum = 0;
      for (let i = 0; i < workerData.count; i++) {
        calls.write(0, 4, 4, i);
        sum += calls.read(0, 8, 4);
      }
      parentPort.postMessage(sum);
    });`;
  const start = (buffer: SharedArrayBuffer, vcpu: number, count: number): Worker => {
    const url = (name: string): string => new URL(`../../vmm/${name}.js`, import.meta.url).href;
    const workerData = { calls: url("virtio/register-calls"), shared: url("vcpu/shared"), buffer, vcpu, count };
    return new Worker(script, { eval: true, workerData });
  };

  it("two threads' accesses reach the owner one by one, each with its answer", async function () {
    this.timeout(20_000);
    const shared = VmShared.create(2, 0);
    let written = 0;
    let writes = 0;
    const device: BusDevice = {
      name: "counter",
      read: () => 2,
      write: (_offset, _size, value) => {
        writes++;
        written += value;
      },
    };
    const count = 500;
    const sums = [0, 1].map(
      (vcpu) =>
        new Promise<number>((resolve) => {
          start(shared.buffer, vcpu, count).on("message", (message: number | "wake") => {
            if (message !== "wake") resolve(message);
            else for (const slot of [0, 1]) answerRegisterCall(shared.registerCall(slot), [device]);
          });
        }),
    );
    assert.deepEqual(await Promise.all(sums), [2 * count, 2 * count]);
    assert.deepEqual([writes, written], [2 * count, count * (count - 1)]);
  });

  it("a thread whose owner never answers is let go when the VM stops", async function () {
    this.timeout(20_000);
    const shared = VmShared.create(2, 0);
    const worker = start(shared.buffer, 1, 1);
    const sum = new Promise((resolve) => {
      worker.on("message", (message) => {
        if (message === "wake") shared.tryStop("killed");
        else resolve(message);
      });
    });
    assert.equal(await sum, 0);
  });

  it("nobody has asked: nothing is answered; a device that is not there reads 0", () => {
    const shared = VmShared.create(1, 0);
    answerRegisterCall(shared.registerCall(0), []);
    const calls = new RegisterCalls(shared, 0, () => answerRegisterCall(shared.registerCall(0), []));
    assert.equal(calls.read(3, 0, 4), 0);
  });
});
