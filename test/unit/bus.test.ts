// Needs: nothing.
import assert from "node:assert/strict";
import type { AccessSize, BusDevice } from "../../devices/contracts.js";
import { Bus } from "../../vmm/vcpu/bus.js";
import { BusError } from "../../vmm/errors.js";

function recorder(name: string): BusDevice & { log: string[] } {
  const log: string[] = [];
  return {
    name,
    log,
    read: (offset: number, size: AccessSize) => {
      log.push(`r${String(offset)}/${String(size)}`);
      return offset;
    },
    write: (offset: number, size: AccessSize, value: number) => {
      log.push(`w${String(offset)}/${String(size)}=${String(value)}`);
    },
  };
}

describe("bus", () => {
  it("finds the device at its first and last byte, and nobody one byte beside", () => {
    const bus = new Bus("pio");
    const a = recorder("a");
    const b = recorder("b");
    bus.attach(0x3f8, 8, a);
    bus.attach(0x60, 5, b);
    assert.equal(bus.read(0x3f8, 1), 0);
    assert.equal(bus.read(0x3ff, 1), 7);
    assert.equal(bus.read(0x64, 1), 4);
    assert.equal(bus.read(0x3f7, 1), 0xff);
    assert.equal(bus.read(0x400, 1), 0xff);
    assert.equal(bus.read(0x65, 2), 0xffff);
    assert.equal(bus.unclaimedReads, 3);
    bus.write(0x3f9, 1, 0x42);
    assert.deepEqual(a.log, ["r0/1", "r7/1", "w1/1=66"]);
  });

  it("an access over the end of a range belongs to nobody", () => {
    const bus = new Bus("mmio");
    const device = recorder("a");
    bus.attach(0xc000_0000, 0x1000, device);
    assert.equal(bus.read(0xc000_0ffe, 4), 0xffff_ffff);
    bus.write(0xc000_0ffe, 4, 1);
    assert.equal(bus.unclaimedWrites, 1);
    assert.deepEqual(device.log, []);
  });

  it("refuses ranges that are empty, overlap or leave the address space", () => {
    const bus = new Bus("pio");
    bus.attach(0x100, 0x10, recorder("a"));
    assert.throws(() => bus.attach(0x10f, 1, recorder("b")), BusError);
    assert.throws(() => bus.attach(0xf8, 0x40, recorder("b")), BusError);
    assert.throws(() => bus.attach(0x200, 0, recorder("b")), BusError);
    assert.throws(() => bus.attach(-1, 4, recorder("b")), BusError);
    assert.throws(() => bus.attach(0xffff, 2, recorder("b")), /ends after 0x10000/);
    bus.attach(0x110, 1, recorder("c"));
    bus.attach(0xffff, 1, recorder("d"));
  });
});
