// Needs: nothing. MSI-X: messages, masks, pending bits, saved and restored.
import assert from "node:assert/strict";
import { PCI_MSIX_FLAGS_ENABLE, PCI_MSIX_FLAGS_MASKALL } from "../../../devices/pci/constants.js";
import { Msix, type MsiMessage } from "../../../devices/pci/msix.js";
import { StateReader } from "../../../devices/state.js";

function rig(vectors = 10) {
  const sent: MsiMessage[] = [];
  const changed: number[] = [];
  const msix = new Msix({ vectors, send: (message) => sent.push(message), changed: (vector) => changed.push(vector) });
  const program = (vector: number, data: number, control = 0): void => {
    [0xfee0_1000, 1, data, control].forEach((word, at) => {
      msix.table.write(16 * vector + 4 * at, 4, word);
    });
  };
  return { msix, sent, changed, program };
}

const messageOf = (data: number): MsiMessage => ({ addressLow: 0xfee0_1000, addressHigh: 1, data });

describe("pci: msix", () => {
  it("a vector sends what the guest has written; each entry begins masked", () => {
    const { msix, sent, program } = rig();
    assert.equal(msix.table.read(16 * 9 + 12, 4), 1);
    msix.flags = PCI_MSIX_FLAGS_ENABLE;
    program(3, 0x4033);
    msix.signal(3);
    assert.deepEqual(sent, [messageOf(0x4033)]);
    msix.signal(4);
    assert.equal(sent.length, 1);
    assert.deepEqual([msix.pba.read(0, 4), msix.pba.read(0, 1), msix.pba.read(1, 1)], [1 << 4, 1 << 4, 0]);
  });

  it("what is masked waits, is sent once when the mask goes, and its pending bit with it", () => {
    const { msix, sent, program } = rig();
    msix.flags = PCI_MSIX_FLAGS_ENABLE;
    program(9, 7, 1);
    for (let times = 0; times < 3; times++) msix.signal(9);
    assert.deepEqual([sent.length, msix.pba.read(1, 1)], [0, 2]);
    msix.table.write(16 * 9 + 12, 4, 0);
    assert.deepEqual([sent, msix.pba.read(0, 4)], [[messageOf(7)], 0]);
    msix.flags = PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL;
    msix.signal(9);
    assert.equal(msix.message(9), undefined);
    msix.flags = PCI_MSIX_FLAGS_ENABLE;
    assert.deepEqual(sent, [messageOf(7), messageOf(7)]);
  });

  it("disabled, it sends nothing and remembers nothing", () => {
    const { msix, sent, program } = rig();
    program(0, 1);
    msix.signal(0);
    msix.flags = PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL;
    msix.signal(0);
    msix.flags = 0;
    msix.flags = PCI_MSIX_FLAGS_ENABLE;
    msix.signal(10);
    assert.deepEqual([sent, msix.pba.read(0, 4)], [[], 0]);
  });

  it("reserved bits stay zero; other widths read what is there and write nothing; beyond the table is nothing", () => {
    const { msix } = rig(1);
    for (let at = 0; at < 32; at += 4) msix.table.write(at, 4, 0xffff_ffff);
    assert.deepEqual(
      [0, 4, 8, 12, 16].map((at) => msix.table.read(at, 4)),
      [0xffff_fffc, 0xffff_ffff, 0xffff_ffff, 1, 0],
    );
    msix.table.write(8, 2, 0);
    msix.table.write(9, 4, 0);
    assert.deepEqual([msix.table.read(10, 2), msix.table.read(11, 1), msix.table.read(9, 4)], [0xffff, 0xff, 0]);
    msix.pba.write(0, 4, 0xffff_ffff);
    assert.deepEqual([msix.pba.read(0, 4), msix.pba.read(4, 4)], [0, 0]);
  });

  it("whoever has a vector elsewhere hears of each change", () => {
    const { msix, changed, program } = rig(2);
    msix.flags = PCI_MSIX_FLAGS_ENABLE;
    changed.length = 0;
    program(1, 5);
    assert.deepEqual([...new Set(changed)], [1]);
    assert.deepEqual(msix.message(1), messageOf(5));
  });

  it("saved and restored: the table, and what is pending", () => {
    const { msix, program } = rig();
    msix.flags = PCI_MSIX_FLAGS_ENABLE;
    program(2, 0x42, 1);
    program(5, 0x45);
    msix.signal(2);
    const saved = JSON.parse(JSON.stringify(msix.save())) as unknown;
    const other = rig();
    other.msix.restore(new StateReader(saved, "msix"), PCI_MSIX_FLAGS_ENABLE);
    assert.deepEqual(other.sent, [], "pending, and masked as before");
    assert.deepEqual([...new Set(other.changed)].length, 10);
    other.msix.signal(5);
    other.msix.table.write(16 * 2 + 12, 4, 0);
    assert.deepEqual(other.sent, [messageOf(0x45), messageOf(0x42)]);
  });

  it("a table of another size, and pending vectors that are not there, or twice, are refused", () => {
    const good = rig(2).msix.save();
    for (const wrong of [
      rig(3).msix.save(),
      { ...good, pending: [2] },
      { ...good, pending: [1, 1] },
      { ...good, more: 1 },
    ]) {
      assert.throws(() => {
        rig(2).msix.restore(new StateReader(wrong, "msix"), 0);
      }, /^StateError: msix/);
    }
  });
});
