// Needs: nothing.
import assert from "node:assert/strict";
import { VIRTIO_CONSOLE_F_SIZE } from "../../../devices/virtio/console/constants.js";
import { CONSOLE_INPUT_BYTES, ConsoleDevice } from "../../../devices/virtio/console/device.js";
import { InputBuffer } from "../../../devices/virtio/console/input-buffer.js";
import {
  VIRTIO_MMIO_CONFIG_GENERATION,
  VIRTIO_MMIO_INT_CONFIG,
  VIRTIO_RING_F_EVENT_IDX,
} from "../../../devices/virtio/constants.js";
import type { DriverQueue } from "../../helpers/driver-queue.js";
import { virtioMachine, type VirtioMachine } from "../../helpers/virtio-machine.js";

const BUFFER = 0x20_0000;
const FEATURES = [VIRTIO_CONSOLE_F_SIZE, VIRTIO_RING_F_EVENT_IDX];

interface Rig extends VirtioMachine {
  readonly device: ConsoleDevice;
  readonly output: string[];
  /** What `transmit` answers. */
  isReady: boolean;
  roomCalls: number;
  receiveq: DriverQueue;
  transmitq: DriverQueue;
}

function start(m: VirtioMachine, features: readonly number[]): { receiveq: DriverQueue; transmitq: DriverQueue } {
  const [receiveq, transmitq] = m.driver.start({ features });
  assert.ok(receiveq !== undefined && transmitq !== undefined);
  return { receiveq, transmitq };
}

function rig(features: readonly number[] = FEATURES, hasBreak = false): Rig {
  const output: string[] = [];
  const device = new ConsoleDevice({
    name: "console0",
    host: {
      transmit: (bytes) => {
        output.push(Buffer.from(bytes).toString("latin1"));
        return m.isReady;
      },
      roomAvailable: () => m.roomCalls++,
    },
    size: { columns: 80, rows: 25 },
    hasBreak,
  });
  const machine = virtioMachine(device);
  const m: Rig = Object.assign(machine, { device, output, isReady: true, roomCalls: 0, ...start(machine, features) });
  return m;
}

function write(m: Rig, text: string, at = BUFFER): void {
  m.memory.slice(at, text.length).set(Buffer.from(text, "latin1"));
  m.transmitq.add([{ gpa: at, length: text.length }]);
}

function addInputBuffer(m: Rig, length: number, gpa = BUFFER): void {
  m.receiveq.add([{ gpa, length, writable: true }]);
}

describe("console device", () => {
  it("output reaches the host in order, one interrupt for all", () => {
    const m = rig();
    write(m, "hello, ");
    write(m, "world", BUFFER + 64);
    m.transmitq.wantInterrupt(1);
    m.driver.notify(1);
    assert.deepEqual(m.output, ["hello, ", "world"]);
    assert.deepEqual(
      m.transmitq.collect().map(({ length }) => length),
      [0, 0],
    );
    assert.equal(m.interrupts, 1);
    assert.equal(m.device.counters.outputBytes, 12);
  });

  it("a host that wants no more gets no more, and the guest's buffers wait", () => {
    const m = rig();
    m.isReady = false;
    for (const text of ["a", "b", "c"]) write(m, text, BUFFER + text.charCodeAt(0));
    m.driver.notify(1);
    m.driver.notify(1);
    assert.deepEqual(m.output, ["a"]);
    assert.equal(m.transmitq.collect().length, 1);
    m.isReady = true;
    m.device.outputReady();
    assert.deepEqual(m.output, ["a", "b", "c"]);
    assert.equal(m.transmitq.collect().length, 2);
    write(m, "d");
    assert.equal(m.transmitq.wantsNotification(), true);
  });

  it("a long buffer goes in pieces; it is given back after the last", () => {
    const m = rig();
    m.memory.slice(BUFFER, 40_000).fill(0x78);
    m.transmitq.add([{ gpa: BUFFER, length: 40_000 }]);
    m.isReady = false;
    m.driver.notify(1);
    assert.equal(m.transmitq.collect().length, 0);
    m.device.outputReady();
    assert.equal(m.transmitq.collect().length, 0);
    m.isReady = true;
    m.device.outputReady();
    assert.equal(m.transmitq.collect().length, 1);
    assert.equal(m.output.join("").length, 40_000);
  });

  it("a turn is bounded", () => {
    const m = rig();
    const head = m.transmitq.write([{ gpa: BUFFER, length: 1 }]);
    m.transmitq.publish(head);
    let calls = 0;
    const device = m.device;
    const push = m.output.push.bind(m.output);
    m.output.push = (...texts) => {
      calls++;
      m.transmitq.publish(head);
      return push(...texts);
    };
    m.driver.notify(1);
    assert.equal(calls, 64);
    assert.equal(m.loop.turn(), true);
    assert.equal(device.counters.outputBytes, 128);
  });

  it("input fills the guest's buffers, and waits for them", () => {
    const m = rig();
    assert.equal(m.device.receive(Buffer.from("abc")), 3);
    addInputBuffer(m, 2);
    m.driver.notify(0);
    assert.deepEqual(
      m.receiveq.collect().map(({ length }) => length),
      [2],
    );
    assert.equal(Buffer.from(m.memory.slice(BUFFER, 3)).toString("latin1"), "ab\0");
    addInputBuffer(m, 100);
    m.driver.notify(0);
    assert.deepEqual(
      m.receiveq.collect().map(({ length }) => length),
      [1],
    );
    addInputBuffer(m, 100);
    m.driver.notify(0);
    assert.equal(m.receiveq.collect().length, 0);
    const before = m.interrupts;
    m.receiveq.wantInterrupt();
    m.device.receive(Buffer.from("d"));
    assert.equal(m.interrupts, before + 1);
    assert.deepEqual(
      m.receiveq.collect().map(({ length }) => length),
      [1],
    );
    assert.equal(m.device.counters.inputBytes, 4);
  });

  /** What Linux's hvc makes of input on the kernel's console: characters, and SysRq keys in brackets. */
  function hvc(bytes: Uint8Array): string {
    let text = "";
    let isPressed = false;
    for (const byte of bytes) {
      const character = String.fromCharCode(byte);
      if (byte === 0x0f) {
        isPressed = !isPressed;
        if (isPressed) continue;
      } else if (isPressed) {
        text += `[${character}]`;
        isPressed = false;
        continue;
      }
      text += character;
    }
    return text;
  }

  function received(m: Rig): Uint8Array {
    addInputBuffer(m, 4096);
    m.driver.notify(0);
    const [used] = m.receiveq.collect();
    return m.memory.slice(BUFFER, used?.length ?? 0).slice();
  }

  it("Ctrl-O in the input is a character and no break, a break is one", () => {
    const m = rig(FEATURES, true);
    const send = (text: string): number => m.device.receive(Buffer.from(text, "latin1"));
    assert.equal(send("a\x0fc\x0f\x0fd"), 6);
    assert.equal(hvc(received(m)), "a\x0fc\x0f\x0fd");
    m.device.receiveBreak();
    send("c\x0fx");
    assert.equal(hvc(received(m)), "[c]\x0fx");
    m.device.receiveBreak();
    send("\x0fy");
    assert.equal(hvc(received(m)), "\x0fy", "what follows a break is no second one");
    const plain = rig();
    plain.device.receive(Buffer.from("\x0fc"));
    plain.device.receiveBreak();
    assert.deepEqual([...received(plain)], [0x0f, 0x63]);
  });

  it("Ctrl-O that does not fit twice waits", () => {
    const m = rig(FEATURES, true);
    m.device.receive(new Uint8Array(CONSOLE_INPUT_BYTES - 1));
    assert.equal(m.device.receive(Uint8Array.of(0x0f)), 0);
    assert.equal(m.device.receive(Uint8Array.of(0x61, 0x0f)), 1);
  });

  it("input before the driver is there is kept, and over a reset", () => {
    const m = rig();
    m.driver.reset();
    m.device.receive(Buffer.from("early"));
    Object.assign(m, start(m, FEATURES));
    addInputBuffer(m, 16);
    m.driver.notify(0);
    assert.equal(Buffer.from(m.memory.slice(BUFFER, 5)).toString("latin1"), "early");
  });

  it("too much input is refused, and asked for once there is room", () => {
    const m = rig();
    assert.equal(m.device.receive(new Uint8Array(CONSOLE_INPUT_BYTES + 10)), CONSOLE_INPUT_BYTES);
    assert.equal(m.device.receive(new Uint8Array(1)), 0);
    assert.equal(m.device.counters.refusedInputBytes, 11);
    addInputBuffer(m, CONSOLE_INPUT_BYTES / 4);
    m.driver.notify(0);
    assert.equal(m.roomCalls, 0);
    addInputBuffer(m, CONSOLE_INPUT_BYTES / 2);
    m.driver.notify(0);
    assert.equal(m.roomCalls, 1);
    addInputBuffer(m, CONSOLE_INPUT_BYTES / 2);
    m.driver.notify(0);
    assert.equal(m.roomCalls, 1);
  });

  it("a buffer without room is given back and costs no input", () => {
    const m = rig();
    m.device.receive(Buffer.from("x"));
    m.receiveq.add([{ gpa: BUFFER, length: 4 }]);
    addInputBuffer(m, 4, BUFFER + 16);
    m.driver.notify(0);
    assert.deepEqual(
      m.receiveq.collect().map(({ length }) => length),
      [0, 1],
    );
    assert.equal(m.device.counters.refused, 1);
    assert.equal(m.memory.readU8(BUFFER + 16), 0x78);
  });

  it("the size is in the configuration, and a change is told to a driver that asked for it", () => {
    const m = rig();
    assert.equal(m.driver.readConfigU32(0), 80 | (25 << 16));
    const generation = m.driver.read(VIRTIO_MMIO_CONFIG_GENERATION);
    m.device.resize({ columns: 132, rows: 50 });
    assert.equal(m.driver.readConfigU32(0), 132 | (50 << 16));
    assert.equal(m.driver.takeInterrupt(), VIRTIO_MMIO_INT_CONFIG);
    assert.notEqual(m.driver.read(VIRTIO_MMIO_CONFIG_GENERATION), generation);
    const plain = rig([]);
    plain.device.resize({ columns: 1, rows: 1 });
    assert.equal(plain.interrupts, 0);
  });

  it("a reset in the middle of output: the rest is not sent, the next driver starts afresh", () => {
    const m = rig();
    m.isReady = false;
    m.transmitq.add([{ gpa: BUFFER, length: 40_000 }]);
    m.driver.notify(1);
    m.driver.reset();
    m.isReady = true;
    const pieces = m.output.length;
    m.device.outputReady();
    assert.equal(m.output.length, pieces);
    Object.assign(m, start(m, FEATURES));
    write(m, "again");
    m.driver.notify(1);
    assert.equal(m.output.at(-1), "again");
  });
});

describe("input buffer", () => {
  it("gives back in order what fitted, around its end", () => {
    const buffer = new InputBuffer(8);
    const target = new Uint8Array(5);
    assert.equal(buffer.push(Uint8Array.of(1, 2, 3, 4, 5, 6)), 6);
    assert.equal(buffer.shift(target), 5);
    assert.deepEqual([...target], [1, 2, 3, 4, 5]);
    assert.equal(buffer.push(Uint8Array.of(7, 8, 9, 10, 11, 12, 13, 14)), 7);
    assert.equal(buffer.length, 8);
    const rest = new Uint8Array(10);
    assert.equal(buffer.shift(rest), 8);
    assert.deepEqual([...rest], [6, 7, 8, 9, 10, 11, 12, 13, 0, 0]);
    assert.equal(buffer.shift(rest), 0);
  });
});
