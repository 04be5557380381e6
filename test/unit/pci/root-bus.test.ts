// Needs: nothing. The root bus, configuration space, base address registers.
import assert from "node:assert/strict";
import type { AccessSize } from "../../../devices/contracts.js";
import { PciConfigPorts, restorePciConfigPorts, savePciConfigPorts } from "../../../devices/pci/config-ports.js";
import {
  PCI_BASE_ADDRESS_0,
  PCI_COMMAND,
  PCI_COMMAND_MEMORY,
  PCI_DEVICE_ID,
  PCI_STATUS,
  PCI_VENDOR_ID,
} from "../../../devices/pci/constants.js";
import { EmulatedFunction } from "../../../devices/pci/function.js";
import { hostBridge } from "../../../devices/pci/host-bridge.js";
import { StateReader } from "../../../devices/state.js";
import { PciRootBus } from "../../../vmm/pci/root-bus.js";
import { PciDriver } from "../../helpers/pci-driver.js";

const WINDOW = { gpa: 0xc000_0000, length: 0x100_0000 };
const HIGH = { gpa: 0x2_0000_0000, length: 0x10_0000_0000 };

/** A function whose range answers its own first byte, and notes what is written. */
function fake(name: string, address: number, { length = 0x1000, is64Bit = true } = {}) {
  const written: number[] = [];
  const placed: (number | undefined)[] = [];
  const region = {
    name,
    read: (offset: number) => offset,
    write: (offset: number, _size: AccessSize, value: number) => written.push(offset, value),
  };
  const fn = new EmulatedFunction({
    name,
    vendorId: 0x1234,
    deviceId: 0x5678,
    revision: 1,
    classCode: 0xff_00_00,
    bars: [{ index: 0, length, is64Bit, address, region }],
  });
  fn.barPlaced = (_, gpa) => placed.push(gpa);
  return { fn, written, placed };
}

function busWith(...functions: EmulatedFunction[]): { bus: PciRootBus; driver: (index: number) => PciDriver } {
  const bus = new PciRootBus([WINDOW, HIGH]);
  bus.attach(0, hostBridge());
  functions.forEach((fn, index) => {
    bus.attach(index + 1, fn);
  });
  return { bus, driver: (index) => new PciDriver(bus, index + 1) };
}

describe("pci: root bus", () => {
  it("a host bridge is device 0; where nobody is, all ones", () => {
    const { bus } = busWith();
    assert.equal(bus.ecam.read(0x0a, 2), 0x0600);
    for (const [size, ones] of [
      [1, 0xff],
      [2, 0xffff],
      [4, 0xffff_ffff],
    ] as const) {
      assert.equal(bus.ecam.read((1 << 15) + PCI_VENDOR_ID, size), ones);
      assert.equal(bus.ecam.read((1 << 12) + PCI_VENDOR_ID, size), ones, "no second function");
    }
    bus.ecam.write(1 << 15, 4, 1);
    for (const { device } of bus.windows) {
      device.write(0x100, 4, 1);
      assert.equal(device.read(0x100, 4), 0xffff_ffff);
    }
  });

  it("a number that is taken, or beyond the bus, is refused", () => {
    const { bus } = busWith();
    assert.throws(() => {
      bus.attach(0, hostBridge());
    }, /PCI device 0 \(host-bridge\) is taken or beyond 31/);
    assert.throws(() => {
      bus.attach(32, hostBridge());
    }, RangeError);
  });

  it("identity and status are the function's; only some bits of the command are the guest's", () => {
    const { driver } = busWith(fake("a", WINDOW.gpa).fn);
    driver(0).writeConfig(PCI_VENDOR_ID, 4, 0);
    driver(0).writeConfig(PCI_COMMAND, 4, 0xffff_ffff);
    assert.equal(driver(0).readConfig(PCI_VENDOR_ID, 2), 0x1234);
    assert.equal(driver(0).readConfig(PCI_DEVICE_ID, 2), 0x5678);
    assert.equal(driver(0).readConfig(PCI_COMMAND, 2), 0x0406);
    assert.equal(driver(0).readConfig(PCI_STATUS, 2), 0, "no capabilities, no list");
  });

  it("registers say their size when all ones are written, of 64 bits and of 32; bytes will do", () => {
    for (const length of [0x1000, 0x8000, 0x10_0000]) {
      for (const is64Bit of [true, false]) {
        const { driver } = busWith(fake("a", WINDOW.gpa, { length, is64Bit }).fn);
        assert.equal(driver(0).sizeOf(), length);
        assert.equal(driver(0).readConfig(PCI_BASE_ADDRESS_0, 4) & 0xf, is64Bit ? 4 : 0);
        for (let at = 0; at < 4; at++) driver(0).writeConfig(PCI_BASE_ADDRESS_0 + at, 1, 0xff);
        assert.equal(driver(0).readConfig(PCI_BASE_ADDRESS_0, 4), 2 ** 32 - length + (is64Bit ? 4 : 0));
      }
    }
    const { driver } = busWith(fake("a", HIGH.gpa, { length: 2 ** 33 }).fn);
    for (const at of [0, 4]) driver(0).writeConfig(PCI_BASE_ADDRESS_0 + at, 4, 0xffff_ffff);
    assert.equal(driver(0).readConfig(PCI_BASE_ADDRESS_0, 4), 4);
    assert.equal(driver(0).readConfig(PCI_BASE_ADDRESS_0 + 4, 4), 0xffff_fffe);
  });

  it("a range answers where the guest has put it, in either window, and only while memory is decoded", () => {
    const { fn, written, placed } = fake("a", WINDOW.gpa);
    const { driver } = busWith(fn);
    assert.equal(driver(0).read(WINDOW.gpa + 0x10, 4), 0x10);
    driver(0).move(HIGH.gpa + 0x5000);
    assert.equal(driver(0).read(WINDOW.gpa + 0x10, 4), 0xffff_ffff);
    driver(0).write(HIGH.gpa + 0x5ffc, 4, 7);
    assert.deepEqual(written, [0xffc, 7]);
    assert.equal(driver(0).read(HIGH.gpa + 0x5ffe, 4), 0xffff_ffff, "an access over the range's end");
    driver(0).writeConfig(PCI_COMMAND, 2, 0);
    assert.equal(driver(0).read(HIGH.gpa + 0x5000, 4), 0xffff_ffff);
    driver(0).writeConfig(PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    assert.deepEqual(placed, [WINDOW.gpa, undefined, HIGH.gpa + 0x5000, undefined, HIGH.gpa + 0x5000]);
  });

  it("a range over RAM, over the end of a window, or nowhere is not reached", () => {
    for (const address of [0, 0x10_0000, 0xfee0_0000, WINDOW.gpa - 0x1000, WINDOW.gpa + WINDOW.length, 2 ** 63]) {
      const { fn, placed } = fake("a", WINDOW.gpa);
      const { driver } = busWith(fn);
      driver(0).move(address);
      assert.equal(driver(0).read(WINDOW.gpa, 4), 0xffff_ffff);
      assert.equal(placed.at(-1), undefined);
      driver(0).move(WINDOW.gpa);
      assert.equal(placed.at(-1), WINDOW.gpa);
    }
  });

  it("where ranges overlap the first device answers, and no shortcut of either stays", () => {
    const [a, b] = [fake("a", WINDOW.gpa, { length: 0x2000 }), fake("b", WINDOW.gpa + 0x4000)];
    const { driver } = busWith(a.fn, b.fn);
    driver(1).move(WINDOW.gpa + 0x1000);
    assert.deepEqual([a.placed.at(-1), b.placed.at(-1)], [undefined, undefined]);
    assert.equal(driver(1).read(WINDOW.gpa + 0x1004, 4), 0x1004, "as device 1 sees it");
    driver(0).move(WINDOW.gpa + 0x8000);
    assert.deepEqual([a.placed.at(-1), b.placed.at(-1)], [WINDOW.gpa + 0x8000, WINDOW.gpa + 0x1000]);
    assert.equal(driver(1).read(WINDOW.gpa + 0x1004, 4), 4);
  });

  it("two ranges change places: both are told that they have left before one comes", () => {
    const order: string[] = [];
    const [a, b] = [fake("a", WINDOW.gpa), fake("b", WINDOW.gpa + 0x1000)];
    a.fn.barPlaced = (_, gpa) => order.push(`a ${gpa === undefined ? "goes" : "comes"}`);
    b.fn.barPlaced = (_, gpa) => order.push(`b ${gpa === undefined ? "goes" : "comes"}`);
    const { driver } = busWith(a.fn, b.fn);
    order.length = 0;
    driver(0).writeConfig(PCI_BASE_ADDRESS_0, 4, WINDOW.gpa + 0x1000);
    driver(1).writeConfig(PCI_BASE_ADDRESS_0, 4, WINDOW.gpa);
    assert.deepEqual(order, ["a goes", "b goes", "a comes", "b comes"]);
  });
});

describe("pci: configuration mechanism 1", () => {
  function ports() {
    const { bus } = busWith(fake("a", WINDOW.gpa).fn);
    const words = new Int32Array(new SharedArrayBuffer(4));
    return { bus, words, ports: new PciConfigPorts(words, bus.ecam) };
  }

  it("reaches the same registers as ECAM, in any width", () => {
    const { bus, ports: pci } = ports();
    pci.write(0, 4, 0x8000_0800);
    assert.equal(pci.read(0, 4), 0x8000_0800);
    assert.equal(pci.read(4, 4), 0x5678_1234);
    assert.deepEqual([pci.read(6, 2), pci.read(5, 1)], [0x5678, 0x12]);
    pci.write(0, 4, 0x8000_0804);
    pci.write(4, 2, 0);
    assert.equal(bus.ecam.read((1 << 15) + PCI_COMMAND, 2), 0);
    pci.write(0, 4, 0x8000_f800);
    assert.equal(pci.read(4, 4), 0xffff_ffff, "no such device");
    pci.write(0, 4, 0x8001_0000);
    assert.equal(pci.read(4, 4), 0xffff_ffff, "no such bus");
  });

  it("without the enable bit, and of bytes in the address, nothing comes", () => {
    const { ports: pci } = ports();
    pci.write(3, 1, 0x80);
    assert.equal(pci.read(0, 4), 0);
    pci.write(0, 4, 0x0000_0800);
    assert.equal(pci.read(4, 4), 0xffff_ffff);
    assert.equal(pci.read(0, 1), 0xff);
    pci.write(0, 4, 0x8000_0800);
    assert.equal(pci.read(6, 4), 0xffff_ffff, "over the end");
  });

  it("its address is saved and restored", () => {
    const { words, ports: pci } = ports();
    pci.write(0, 4, 0x8000_0804);
    const saved = JSON.parse(JSON.stringify(savePciConfigPorts(words))) as unknown;
    pci.write(0, 4, 0);
    restorePciConfigPorts(words, new StateReader(saved, "pci"));
    assert.equal(pci.read(0, 4), 0x8000_0804);
  });
});
