// Needs: nothing. virtio over PCI: capabilities, the common configuration, notifications, vectors, state.
import assert from "node:assert/strict";
import type { AccessSize } from "../../../devices/contracts.js";
import {
  PCI_CAP_ID_MSIX,
  PCI_CAP_ID_VNDR,
  PCI_COMMAND,
  PCI_DEVICE_ID,
  PCI_STATUS,
  PCI_STATUS_CAP_LIST,
  PCI_VENDOR_ID,
} from "../../../devices/pci/constants.js";
import { StateReader } from "../../../devices/state.js";
import { VIRTIO_CONFIG_S_NEEDS_RESET, VIRTIO_MMIO_STATUS } from "../../../devices/virtio/constants.js";
import { FakeLoop } from "../../helpers/fake-loop.js";
import {
  VIRTIO_MSI_NO_VECTOR,
  VIRTIO_PCI_CAP_COMMON_CFG,
  VIRTIO_PCI_CAP_DEVICE_CFG,
  VIRTIO_PCI_CAP_ISR_CFG,
  VIRTIO_PCI_CAP_NOTIFY_CFG,
  VIRTIO_PCI_CAP_PCI_CFG,
  VIRTIO_PCI_COMMON_CFGGENERATION,
  VIRTIO_PCI_COMMON_MSIX,
  VIRTIO_PCI_COMMON_NUMQ,
  VIRTIO_PCI_COMMON_Q_DESCLO,
  VIRTIO_PCI_COMMON_Q_ENABLE,
  VIRTIO_PCI_COMMON_Q_MSIX,
  VIRTIO_PCI_COMMON_Q_NOFF,
  VIRTIO_PCI_COMMON_Q_SELECT,
  VIRTIO_PCI_COMMON_Q_SIZE,
  VIRTIO_PCI_COMMON_STATUS,
  VIRTIO_PCI_ISR_CONFIG,
  VIRTIO_PCI_ISR_QUEUE,
} from "../../../devices/virtio/pci-constants.js";
import { EchoDevice } from "../../helpers/echo-device.js";
import { assertMutationsRefused } from "../../helpers/mutated-state.js";
import { HIGH_WINDOW, pciMachine, WINDOW, type PciMachine } from "../../helpers/pci-machine.js";
import type { DriverQueue } from "../../helpers/driver-queue.js";

const IN = { gpa: 0x20_0000, length: 4 };
const OUT = { gpa: 0x20_1000, length: 16, writable: true };

interface Machine extends PciMachine {
  readonly device: EchoDevice;
}

function machine(loop = new FakeLoop(), memory?: PciMachine["memory"]): Machine {
  const device = new EchoDevice();
  const m = memory === undefined ? pciMachine(device) : pciMachine(device, loop, memory);
  return Object.assign(m, { device });
}

/** A live device with a vector for each queue. */
function started(): { m: Machine; queues: DriverQueue[] } {
  const m = machine();
  m.pci.enableMsix();
  const queues = m.driver.start();
  m.registers.setVectors(queues.length);
  return { m, queues };
}

function echo(m: Machine, queue: DriverQueue | undefined, index: number, value: number): void {
  m.memory.writeU32(IN.gpa, value);
  const head = queue?.add([IN, OUT]);
  m.driver.notify(index);
  m.loop.settle();
  assert.deepEqual(queue?.collect(), [{ id: head, length: 4 }]);
  assert.equal(m.memory.readU32(OUT.gpa), value);
}

function saveWhole({ function: fn, device }: Machine): { transport: unknown; device: unknown } {
  return JSON.parse(JSON.stringify({ transport: fn.save(), device: device.save() })) as ReturnType<typeof saveWhole>;
}

function restoreWhole({ function: fn }: Machine, state: unknown): void {
  const reader = new StateReader(state, "state");
  reader.only(["transport", "device"]);
  fn.restoreWith(reader.at("transport"), reader.at("device"));
}

describe("virtio over PCI", () => {
  it("is a modern device with all its structures in one range, each where its capability says", () => {
    const { pci } = machine();
    assert.equal(pci.readConfig(PCI_VENDOR_ID, 2), 0x1af4);
    assert.equal(pci.readConfig(PCI_DEVICE_ID, 2), 0x1040 + 42);
    assert.equal(pci.readConfig(PCI_STATUS, 2), PCI_STATUS_CAP_LIST);
    assert.equal(pci.capabilities(PCI_CAP_ID_MSIX).length, 1);
    const types = pci.capabilities(PCI_CAP_ID_VNDR).map((at) => pci.readConfig(at + 3, 1));
    assert.deepEqual(types, [
      VIRTIO_PCI_CAP_COMMON_CFG,
      VIRTIO_PCI_CAP_NOTIFY_CFG,
      VIRTIO_PCI_CAP_ISR_CFG,
      VIRTIO_PCI_CAP_DEVICE_CFG,
      VIRTIO_PCI_CAP_PCI_CFG,
    ]);
    for (const type of types.slice(0, 4)) {
      const { gpa, length } = pci.structure(type);
      assert.ok(gpa >= pci.address && gpa + length <= pci.address + pci.sizeOf());
    }
    for (const at of pci.capabilities(PCI_CAP_ID_VNDR)) assert.ok(pci.readConfig(at + 2, 1) >= 16 && at % 4 === 0);
  });

  it("a driver finds its queues, sets them up and has them served", () => {
    const { m, queues } = started();
    assert.equal(m.registers.readCommon(VIRTIO_PCI_COMMON_NUMQ, 2), 2);
    assert.deepEqual(
      queues.map(({ size }) => size),
      [16, 8],
    );
    queues.forEach((queue, index) => {
      echo(m, queue, index, 0x1234_5678 + index);
    });
    // Vector 0 is the configuration's.
    assert.deepEqual(
      m.sent.map(({ data }) => data),
      [0x21, 0x22],
    );
    assert.equal(m.driver.takeInterrupt(), 0, "no ISR while MSI-X is on");
  });

  it("it goes on wherever the guest moves it, and is silent while memory is not decoded", () => {
    const { m, queues } = started();
    m.pci.move(HIGH_WINDOW.gpa);
    echo(m, queues[0], 0, 1);
    m.pci.move(WINDOW.gpa + 0x8000);
    echo(m, queues[0], 0, 2);
    m.pci.writeConfig(PCI_COMMAND, 2, 0);
    queues[0]?.add([IN, OUT]);
    m.pci.write(WINDOW.gpa + 0x8000 + 0x3000, 2, 0);
    m.loop.settle();
    assert.deepEqual(queues[0]?.collect(), []);
  });

  it("a queue's size is the largest until the driver chooses; nothing of a ready queue changes", () => {
    const m = machine();
    m.driver.negotiate();
    const { registers } = m;
    registers.writeCommon(VIRTIO_PCI_COMMON_Q_SELECT, 2, 1);
    assert.equal(registers.readCommon(VIRTIO_PCI_COMMON_Q_SIZE, 2), 8);
    assert.equal(registers.readCommon(VIRTIO_PCI_COMMON_Q_NOFF, 2), 1);
    registers.writeCommon(VIRTIO_PCI_COMMON_Q_SIZE, 2, 4);
    assert.equal(registers.readCommon(VIRTIO_PCI_COMMON_Q_SIZE, 2), 4);
    const queue = m.driver.setUpQueue(1, 4);
    registers.writeCommon(VIRTIO_PCI_COMMON_Q_DESCLO, 4, 0);
    assert.equal(registers.readCommon(VIRTIO_PCI_COMMON_Q_DESCLO, 4), queue.descriptorGpa);
    registers.writeCommon(VIRTIO_PCI_COMMON_Q_ENABLE, 2, 0);
    assert.equal(registers.readCommon(VIRTIO_PCI_COMMON_Q_ENABLE, 2), 1, "only a reset takes it back");
    registers.writeCommon(VIRTIO_PCI_COMMON_Q_SELECT, 2, 2);
    assert.equal(registers.readCommon(VIRTIO_PCI_COMMON_Q_SIZE, 2), 0, "there is no third");
  });

  it("fields are reached in their own width only", () => {
    const m = machine();
    const { registers } = m;
    registers.writeCommon(VIRTIO_PCI_COMMON_STATUS, 4, 1);
    assert.deepEqual([m.driver.status, m.function.transport.counters.refusedWrites], [0, 1]);
    registers.writeCommon(VIRTIO_PCI_COMMON_STATUS, 1, 1);
    assert.equal(registers.readCommon(VIRTIO_PCI_COMMON_STATUS, 1), 1);
    assert.equal(registers.readCommon(VIRTIO_PCI_COMMON_STATUS, 2), 0);
  });

  it("a vector that is not there reads as none; a reset takes all away", () => {
    const { m } = started();
    const { registers } = m;
    for (const field of [VIRTIO_PCI_COMMON_MSIX, VIRTIO_PCI_COMMON_Q_MSIX]) {
      registers.writeCommon(field, 2, 2);
      assert.equal(registers.readCommon(field, 2), 2);
      registers.writeCommon(field, 2, 3);
      assert.equal(registers.readCommon(field, 2), VIRTIO_MSI_NO_VECTOR);
      registers.writeCommon(field, 2, 1);
    }
    m.driver.reset();
    registers.writeCommon(VIRTIO_PCI_COMMON_Q_SELECT, 2, 1);
    assert.equal(registers.readCommon(VIRTIO_PCI_COMMON_MSIX, 2), VIRTIO_MSI_NO_VECTOR);
    assert.equal(registers.readCommon(VIRTIO_PCI_COMMON_Q_MSIX, 2), VIRTIO_MSI_NO_VECTOR);
  });

  it("without MSI-X the ISR says why, and reading it clears it", () => {
    const m = machine();
    const queues = m.driver.start();
    echo(m, queues[0], 0, 9);
    m.device.context?.configChanged();
    assert.equal(m.driver.read(0x60), VIRTIO_PCI_ISR_QUEUE | VIRTIO_PCI_ISR_CONFIG);
    assert.equal(m.driver.read(0x60), 0);
    assert.deepEqual(m.sent, []);
  });

  it("another configuration counts its generation and sends the configuration's vector", () => {
    const { m } = started();
    m.device.context?.configChanged();
    assert.equal(m.registers.readCommon(VIRTIO_PCI_COMMON_CFGGENERATION, 1), 1);
    assert.deepEqual(
      m.sent.map(({ data }) => data),
      [0x20],
    );
  });

  it("what is masked is sent when the mask goes", () => {
    const { m, queues } = started();
    m.pci.writeVector(1, [1], 3);
    echo(m, queues[0], 0, 3);
    assert.deepEqual(m.sent, []);
    m.pci.writeVector(1, [0], 3);
    assert.deepEqual(
      m.sent.map(({ data }) => data),
      [0x21],
    );
  });

  it("the window in configuration space reaches the structures, in the width that is asked for", () => {
    const m = machine();
    const at = m.pci
      .capabilities(PCI_CAP_ID_VNDR)
      .find((one) => m.pci.readConfig(one + 3, 1) === VIRTIO_PCI_CAP_PCI_CFG);
    assert.ok(at !== undefined);
    const aim = (offset: number, length: number, bar = 0): void => {
      m.pci.writeConfig(at + 4, 1, bar);
      m.pci.writeConfig(at + 8, 4, offset);
      m.pci.writeConfig(at + 12, 4, length);
    };
    aim(VIRTIO_PCI_COMMON_STATUS, 1);
    m.pci.writeConfig(at + 16, 1, 1);
    assert.deepEqual([m.pci.readConfig(at + 16, 1), m.driver.status], [1, 1]);
    aim(VIRTIO_PCI_COMMON_NUMQ, 2);
    assert.equal(m.pci.readConfig(at + 16, 2), 2);
    const wrong: [number, number, number?, AccessSize?][] = [
      [VIRTIO_PCI_COMMON_NUMQ, 4, 0, 2],
      [VIRTIO_PCI_COMMON_NUMQ, 2, 1, 2],
      [VIRTIO_PCI_COMMON_NUMQ + 1, 2, 0, 2],
      [0xffff_fffe, 2, 0, 2],
    ];
    for (const [offset, length, bar, size = 2] of wrong) {
      aim(offset, length, bar);
      assert.equal(m.pci.readConfig(at + 16, size), 0);
      m.pci.writeConfig(at + 16, size, 0xffff);
    }
    assert.equal(m.driver.status, 1);
  });

  it("a queue that cannot be ends in DEVICE_NEEDS_RESET", () => {
    const m = machine();
    m.driver.negotiate();
    assert.equal(
      m.driver.announceQueue(0, { size: 16, descriptorGpa: 0xf000_0000, availableGpa: 0x1000, usedGpa: 0x2000 }),
      false,
    );
    assert.ok((m.driver.read(VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET) !== 0);
    assert.match(m.log.join(), /Descriptor table at 0xf0000000, 256 bytes, is not in RAM/);
  });

  it("saved and restored in the middle of its life: ranges, vectors, masks, queues", async () => {
    const { m, queues } = started();
    m.pci.move(HIGH_WINDOW.gpa + 0x8000);
    m.pci.writeVector(2, [1], 3);
    echo(m, queues[1], 1, 5);
    await m.function.transport.quiesce();
    const next = machine(m.loop, m.memory);
    restoreWhole(next, saveWhole(m));
    assert.equal(next.pci.address, HIGH_WINDOW.gpa + 0x8000);
    assert.equal(next.placed.at(-1), HIGH_WINDOW.gpa + 0x8000);
    next.function.transport.unquiesce();
    // Whatever was on its way is sent once more, but for the one that is masked.
    assert.deepEqual(
      next.sent.map(({ data }) => data),
      [0x20, 0x21],
    );
    echo(next, queues[0], 0, 6);
    next.pci.writeVector(2, [0], 3);
    assert.deepEqual(
      next.sent.map(({ data }) => data),
      [0x20, 0x21, 0x21, 0x22],
    );
  });

  it("a state that no driver can have brought about is refused", async () => {
    const { m } = started();
    await m.function.transport.quiesce();
    const state = saveWhole(m);
    const { transport } = state;
    const registers = (transport as { transport: Record<string, unknown> }).transport;
    const wrong = [
      { ...registers, configVector: 3 },
      { ...registers, queueVectors: [1] },
      { ...registers, queueVectors: [1, 3] },
      { ...registers, isr: 4 },
    ];
    for (const one of wrong) {
      assert.throws(() => {
        restoreWhole(machine(m.loop, m.memory), { ...state, transport: { ...(transport as object), transport: one } });
      }, /^StateError: state\.transport\.transport/);
    }
    const config = Buffer.from((transport as { config: string }).config, "base64");
    config[PCI_VENDOR_ID] = 0;
    assert.throws(() => {
      restoreWhole(machine(m.loop, m.memory), {
        ...state,
        transport: { ...(transport as object), config: config.toString("base64") },
      });
    }, /state\.transport\.config has another value at 0x0 than this function/);
    assertMutationsRefused(state, "state", (mutated) => {
      restoreWhole(machine(m.loop, m.memory), mutated);
    });
  });
});
