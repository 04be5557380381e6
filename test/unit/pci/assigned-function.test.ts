// Needs: nothing. A device of the host in the guest's configuration space: what is shown, what is hidden, what gets through.
import assert from "node:assert/strict";
import { assignedLayout } from "../../../devices/pci/assigned-layout.js";
import { PCI_BASE_ADDRESS_0, PCI_COMMAND } from "../../../devices/pci/constants.js";
import { PciRootBus } from "../../../vmm/pci/root-bus.js";
import {
  assignedRig,
  BAR_LENGTH,
  EXAMPLE_PARTS,
  exampleConfig,
  EXPRESS_AT,
  MSI_AT,
  MSIX_AT,
  PBA_OFFSET,
  PM_AT,
  TABLE_OFFSET,
  VECTORS,
  VENDOR_AT,
} from "../../helpers/assigned-device.js";
import { WINDOW } from "../../helpers/pci-machine.js";

const RAM_GPA = 0x10_0000;

function changed(change: (view: DataView) => void): Uint8Array {
  const config = exampleConfig();
  change(new DataView(config.buffer));
  return config;
}

describe("pci/assigned-function", () => {
  it("the guest finds the device's identity, its memory and the capabilities that it may have, where the device has them", () => {
    const { function: fn, layout } = assignedRig();
    assert.equal(fn.readConfig(0, 4), 0x0010_1b36);
    assert.equal(fn.readConfig(8, 4), 0x0108_0202);
    assert.equal(fn.readConfig(0x2c, 4), 0x1100_1af4);
    assert.deepEqual(
      layout.bars.map(({ index, length, is64Bit }) => ({ index, length, is64Bit })),
      [
        { index: 0, length: BAR_LENGTH, is64Bit: true },
        { index: 2, length: 0x1000, is64Bit: false },
      ],
    );
    const chain: string[] = [];
    for (let at = fn.readConfig(0x34, 1); at !== 0; at = fn.readConfig(at + 1, 1)) {
      chain.push(`${fn.readConfig(at, 1).toString(16)}@${at.toString(16)}`);
    }
    assert.deepEqual(chain, ["11@70", "9@40", "1@50", "5@58", "10@80"]);
    assert.equal(fn.readConfig(MSIX_AT + 2, 2), VECTORS - 1);
    assert.equal(fn.readConfig(MSIX_AT + 4, 4), TABLE_OFFSET);
    assert.equal(fn.readConfig(MSIX_AT + 8, 4), PBA_OFFSET);
  });

  it("hidden are I/O ranges, the link, and all behind 256 bytes", () => {
    const { function: fn, host } = assignedRig();
    host.log.length = 0;
    assert.equal(fn.readConfig(0x1c, 4), 0);
    assert.equal(fn.readConfig(0x30, 4), 0);
    assert.equal(fn.readConfig(EXPRESS_AT + 2, 2), 0x92);
    assert.equal(fn.readConfig(EXPRESS_AT + 0x0c, 4), 0);
    for (let offset = 0x100; offset < 0x1000; offset += 4) assert.equal(fn.readConfig(offset, 4), 0);
    assert.deepEqual(host.log, []);
  });

  it("the command register: the device's memory always answers; the guest decides who masters the bus", () => {
    const { function: fn, host } = assignedRig(exampleConfig(), { ...EXAMPLE_PARTS, hasLine: false });
    assert.deepEqual(host.log, ["config 4 2 = 402"]);
    fn.writeConfig(PCI_COMMAND, 2, 0x0006);
    fn.writeConfig(PCI_COMMAND, 2, 0x0004);
    fn.writeConfig(PCI_COMMAND, 4, 0xffff_0000);
    assert.deepEqual(host.log.slice(1), ["config 4 2 = 406", "config 4 2 = 402"]);
    assert.equal(fn.readConfig(PCI_COMMAND, 2), 0);
    assert.deepEqual(fn.decoded(), []);
  });

  it("its line: on with the guest's first word that leaves it on, heard before the device has it, and off behind that", () => {
    const { function: fn, host } = assignedRig();
    assert.equal(fn.readConfig(0x3c, 2), 0x0100);
    host.log.length = 0;
    fn.writeConfig(PCI_COMMAND, 2, 0x0006);
    fn.writeConfig(PCI_COMMAND, 2, 0x0406);
    fn.writeConfig(PCI_COMMAND, 2, 0x0402);
    assert.deepEqual(host.log, ["line on", "config 4 2 = 6", "config 4 2 = 406", "line off", "config 4 2 = 402"]);
  });

  it("its line that is asked for shows in the status register, at any access", () => {
    const { function: fn, host } = assignedRig();
    const before = fn.readConfig(4, 4);
    host.config[6] = 0xff;
    assert.equal(fn.readConfig(4, 4), before + 0x8_0000);
    assert.equal(fn.readConfig(6, 2), (before >>> 16) + 8);
    assert.equal(fn.readConfig(6, 1), (before >>> 16) + 8);
    assert.equal(fn.readConfig(5, 2), ((before >>> 8) & 0xffff) + 0x800);
    assert.equal(fn.readConfig(7, 1), 0);
    assert.equal(fn.readConfig(4, 2), before & 0xffff);
  });

  it("a device without a line, or whose line the host does not hand over, has no pin", () => {
    for (const [config, hasLine] of [
      [changed((view) => view.setUint8(0x3d, 0)), true],
      [exampleConfig(), false],
    ] as const) {
      const { function: fn, layout } = assignedRig(config, { ...EXAMPLE_PARTS, hasLine });
      assert.equal(layout.hasLine, false);
      assert.equal(fn.readConfig(0x3c, 2), 0);
    }
  });

  it("MSI: off at first, with the vectors that both have, without masks; each sends the guest's message with its own number", () => {
    const { function: fn, msi, sent, layout } = assignedRig();
    assert.deepEqual(layout.msi, { at: MSI_AT, vectors: 4 });
    assert.equal(fn.readConfig(MSI_AT + 2, 2), 0x84);
    fn.writeConfig(MSI_AT + 4, 4, 0xfee0_1003);
    fn.writeConfig(MSI_AT + 8, 4, 1);
    fn.writeConfig(MSI_AT + 12, 4, 0xffff_4037);
    msi?.signal(0);
    assert.deepEqual(sent, []);
    // Eight, of which it has four.
    fn.writeConfig(MSI_AT + 2, 2, 0x0031);
    assert.equal(fn.readConfig(MSI_AT + 2, 2), 0x00b5);
    for (const vector of [0, 3, 4]) msi?.signal(vector);
    assert.deepEqual(sent, [
      { addressLow: 0xfee0_1000, addressHigh: 1, data: 0x4034 },
      { addressLow: 0xfee0_1000, addressHigh: 1, data: 0x4037 },
    ]);
    fn.writeConfig(MSI_AT + 2, 2, 1);
    assert.deepEqual(msi?.message(0), { addressLow: 0xfee0_1000, addressHigh: 1, data: 0x4037 });
    assert.equal(msi.message(1), undefined);
  });

  it("MSI with addresses of 32 bits has its data where such a capability has them", () => {
    const { function: fn, msi } = assignedRig(changed((view) => view.setUint16(MSI_AT + 2, 0, true)));
    fn.writeConfig(MSI_AT + 4, 4, 0xfee0_0000);
    fn.writeConfig(MSI_AT + 8, 2, 0x41);
    fn.writeConfig(MSI_AT + 2, 2, 1);
    assert.deepEqual(msi?.message(0), { addressLow: 0xfee0_0000, addressHigh: 0, data: 0x41 });
  });

  it("a device without any interrupts is shown without any", () => {
    const {
      function: fn,
      layout,
      msix,
      msi,
    } = assignedRig(exampleConfig(), {
      ...EXAMPLE_PARTS,
      hasLine: false,
      msiVectors: 0,
      msixVectors: 0,
    });
    assert.deepEqual([layout.msix, layout.msi, msix, msi], [undefined, undefined, undefined, undefined]);
    assert.equal(fn.readConfig(0x34, 1), VENDOR_AT);
    assert.equal(fn.readBar(0, TABLE_OFFSET, 4), 0x5a);
  });

  it("a guest that puts the device to sleep puts only its register to sleep", () => {
    const { function: fn, host } = assignedRig();
    host.log.length = 0;
    assert.equal(fn.readConfig(PM_AT + 4, 2), 8);
    fn.writeConfig(PM_AT + 4, 2, 0xffff);
    assert.equal(fn.readConfig(PM_AT + 4, 2), 0xb);
    assert.deepEqual(host.log, []);
  });

  it("a vendor's capability is the device's own, but for its head", () => {
    const { function: fn, host } = assignedRig();
    host.log.length = 0;
    assert.equal(fn.readConfig(VENDOR_AT, 2), 0x09 | (PM_AT << 8));
    assert.equal(fn.readConfig(VENDOR_AT + 2, 1), 0x10);
    fn.writeConfig(VENDOR_AT + 0xc, 4, 0x1234);
    fn.writeConfig(VENDOR_AT, 4, 0xffff_ffff);
    fn.writeConfig(VENDOR_AT + 0x10, 1, 1);
    assert.deepEqual(host.log, ["config 42 1", "config 4c 4 = 1234"]);
  });

  it("a function-level reset resets the device, which masters nothing afterwards", () => {
    const { function: fn, host } = assignedRig();
    fn.writeConfig(PCI_COMMAND, 2, 6);
    host.log.length = 0;
    fn.writeConfig(EXPRESS_AT + 8, 2, 0x8010);
    assert.deepEqual(host.log, ["reset", "config 4 2 = 2"]);
    assert.equal(fn.readConfig(EXPRESS_AT + 8, 2), 0x10);
    assert.equal(fn.readConfig(PCI_COMMAND, 2), 2);
    fn.writeConfig(EXPRESS_AT + 9, 1, 0x7f);
    fn.writeConfig(EXPRESS_AT + 6, 2, 0xffff);
    assert.equal(host.log.filter((line) => line === "reset").length, 1);
  });

  it("the MSI-X table and what is pending are the monitor's, the rest of the range is the device's", () => {
    const { function: fn, host, msix, sent } = assignedRig();
    host.log.length = 0;
    fn.writeBar(0, TABLE_OFFSET + 16, 4, 0xfee0_0000);
    fn.writeBar(0, TABLE_OFFSET + 24, 4, 0x41);
    fn.writeBar(0, TABLE_OFFSET + 28, 4, 0);
    assert.equal(fn.readBar(0, TABLE_OFFSET + 24, 4), 0x41);
    fn.writeConfig(MSIX_AT + 2, 2, 0x8000);
    msix?.signal(1);
    assert.deepEqual(sent, [{ addressLow: 0xfee0_0000, addressHigh: 0, data: 0x41 }]);
    assert.equal(fn.readBar(0, PBA_OFFSET, 4), 0);
    assert.deepEqual(host.log, []);
    assert.equal(fn.readBar(0, TABLE_OFFSET + 16 * VECTORS, 4), 0x5a);
    fn.writeBar(0, 0x1000, 4, 7);
    fn.writeBar(2, 8, 2, 9);
    assert.deepEqual(host.log, ["bar0 2030 4", "bar0 1000 4 = 7", "bar2 8 2 = 9"]);
  });

  it("a range over RAM, over another one or over the bus's own windows reaches nothing there, and nobody is told of it", () => {
    const { function: fn } = assignedRig();
    const bus = new PciRootBus([WINDOW]);
    const placed: (number | undefined)[] = [];
    fn.barPlaced = (index, gpa) => {
      if (index === 0) placed.push(gpa);
    };
    bus.attach(1, fn);
    const move = (gpa: number): void => {
      fn.writeConfig(PCI_BASE_ADDRESS_0, 4, gpa);
    };
    move(WINDOW.gpa + BAR_LENGTH);
    move(RAM_GPA);
    move(0xe000_0000);
    move(0xfee0_0000);
    // Over its own second range.
    move(WINDOW.gpa + 0x1_4000);
    move(WINDOW.gpa + WINDOW.length - BAR_LENGTH);
    fn.writeConfig(PCI_COMMAND, 2, 0);
    assert.deepEqual(placed, [
      WINDOW.gpa + 0x1_0000,
      undefined,
      WINDOW.gpa + BAR_LENGTH,
      undefined,
      WINDOW.gpa + WINDOW.length - BAR_LENGTH,
      undefined,
    ]);
  });

  for (const [what, config, parts, message] of [
    ["a bridge", changed((view) => view.setUint8(0x0e, 1)), EXAMPLE_PARTS, /has a header of type 1/],
    ["a table in no range", changed((view) => view.setUint32(MSIX_AT + 4, 5, true)), EXAMPLE_PARTS, /outside/],
    ["a table that runs over", changed((view) => view.setUint32(MSIX_AT + 4, 0x3fe0, true)), EXAMPLE_PARTS, /outside/],
    ["a table far away", changed((view) => view.setUint32(MSIX_AT + 8, 0xffff_fff8, true)), EXAMPLE_PARTS, /outside/],
    ["no memory", exampleConfig(), { ...EXAMPLE_PARTS, barSizes: [] }, /outside/],
  ] as const) {
    it(`refused: ${what}`, () => {
      assert.throws(() => assignedLayout(config, parts), message);
    });
  }

  it("a list of capabilities that leads in a circle, or one that runs into the next, is cut", () => {
    const circle = assignedLayout(
      changed((view) => view.setUint8(EXPRESS_AT + 1, VENDOR_AT)),
      EXAMPLE_PARTS,
    );
    assert.equal(circle.capabilities.length, 4);
    const long = assignedLayout(
      changed((view) => view.setUint8(VENDOR_AT + 2, 0xff)),
      EXAMPLE_PARTS,
    );
    assert.deepEqual(long.through, [{ offset: VENDOR_AT + 2, length: PM_AT - VENDOR_AT - 2 }]);
  });
});
