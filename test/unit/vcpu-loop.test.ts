// Needs: nothing. The exit loop against a hand-written kvm_run.
import assert from "node:assert/strict";
import { Bus } from "../../vmm/vcpu/bus.js";
import { KvmRun } from "../../vmm/kvm/kvm-run.js";
import * as abi from "../../vmm/sys/kvm-abi.js";
import { mmapAnonymous, munmap, viewMemory } from "../../vmm/sys/memory.js";
import { exitKey, exitName } from "../../vmm/vcpu/exit-names.js";
import { dispatchExit, runVcpu } from "../../vmm/vcpu/loop.js";

const LENGTH = 3 * 4096;
const DATA_OFFSET = 4096;

describe("vcpu-loop", () => {
  const address = mmapAnonymous(LENGTH);
  const data = new DataView(viewMemory(address, LENGTH));
  const run = new KvmRun(address, LENGTH);
  after(() => munmap(address, LENGTH));

  const log: string[] = [];
  let next = 0x10;
  const device = {
    name: "test",
    read: (offset: number, size: number) => {
      log.push(`r${String(offset)}/${String(size)}`);
      return next++;
    },
    write: (offset: number, size: number, value: number) => {
      log.push(`w${String(offset)}/${String(size)}=${value.toString(16)}`);
    },
  };
  const pio = new Bus("pio");
  const mmio = new Bus("mmio");
  pio.attach(0x300, 16, device);
  mmio.attach(0xc000_0000, 0x1000, device);

  function io(direction: number, size: number, port: number, count: number): void {
    data.setUint32(abi.kvm_run.exit_reason, abi.KVM_EXIT_IO, true);
    data.setUint8(abi.kvm_run.io, direction);
    data.setUint8(abi.kvm_run.io_size, size);
    data.setUint16(abi.kvm_run.io_port, port, true);
    data.setUint32(abi.kvm_run.io_count, count, true);
    data.setBigUint64(abi.kvm_run.io_data_offset, BigInt(DATA_OFFSET), true);
  }

  function mmioExit(address: number, length: number, isWrite: boolean): void {
    data.setUint32(abi.kvm_run.exit_reason, abi.KVM_EXIT_MMIO, true);
    data.setBigUint64(abi.kvm_run.mmio, BigInt(address), true);
    data.setUint32(abi.kvm_run.mmio_len, length, true);
    data.setUint8(abi.kvm_run.mmio_is_write, isWrite ? 1 : 0);
  }

  beforeEach(() => {
    log.length = 0;
    next = 0x10;
  });

  it("a repeated OUT brings packed items to one port", () => {
    io(abi.KVM_EXIT_IO_OUT, 2, 0x304, 3);
    [0x1111, 0x2222, 0x3333].forEach((value, i) => data.setUint16(DATA_OFFSET + 2 * i, value, true));
    assert.equal(dispatchExit(run, pio, mmio), "handled");
    assert.deepEqual(log, ["w4/2=1111", "w4/2=2222", "w4/2=3333"]);
  });

  it("a repeated IN fills packed items", () => {
    io(abi.KVM_EXIT_IO_IN, 1, 0x300, 3);
    assert.equal(dispatchExit(run, pio, mmio), "handled");
    assert.deepEqual(
      [0, 1, 2].map((i) => data.getUint8(DATA_OFFSET + i)),
      [0x10, 0x11, 0x12],
    );
  });

  it("an unclaimed port reads all ones", () => {
    io(abi.KVM_EXIT_IO_IN, 4, 0xcfc, 1);
    dispatchExit(run, pio, mmio);
    assert.equal(data.getUint32(DATA_OFFSET, true), 0xffff_ffff);
  });

  it("an 8-byte MMIO access is two, low half first; odd lengths go byte by byte", () => {
    mmioExit(0xc000_0008, 8, true);
    data.setBigUint64(abi.kvm_run.mmio_data, 0x1122334455667788n, true);
    dispatchExit(run, pio, mmio);
    assert.deepEqual(log.splice(0), ["w8/4=55667788", "w12/4=11223344"]);
    mmioExit(0xc000_0020, 3, false);
    dispatchExit(run, pio, mmio);
    assert.deepEqual(log, ["r32/1", "r33/1", "r34/1"]);
    assert.equal(data.getUint8(abi.kvm_run.mmio_data + 2), 0x12);
  });

  const ends: [reason: number, outcome: string][] = [
    [abi.KVM_EXIT_SHUTDOWN, "triple-fault"],
    [abi.KVM_EXIT_HLT, "halted"],
    [abi.KVM_EXIT_INTR, "interrupted"],
    [abi.KVM_EXIT_INTERNAL_ERROR, "unknown"],
    [abi.KVM_EXIT_FAIL_ENTRY, "unknown"],
    [abi.KVM_EXIT_HYPERCALL, "unknown"],
    [4711, "unknown"],
  ];
  for (const [reason, outcome] of ends) {
    it(`${exitName(reason)} is "${outcome}"`, () => {
      data.setUint32(abi.kvm_run.exit_reason, reason, true);
      assert.equal(dispatchExit(run, pio, mmio), outcome);
    });
  }

  it("runs on while exits are handled, and leaves when the observer says so", () => {
    let entered = 0;
    const seen: number[] = [];
    const vcpu = {
      run,
      enter: () => {
        entered++;
        io(abi.KVM_EXIT_IO_IN, 1, 0x300, 1);
        return entered % 3 !== 0;
      },
    };
    const observer = {
      beforeExit: (reason: number) => seen.push(reason),
      fixUp: () => false,
      shouldLeave: () => entered === 6,
    };
    assert.equal(runVcpu(vcpu, pio, mmio, observer), "interrupted");
    assert.deepEqual(seen, [2, 2, 10, 2, 2, 10]);
  });

  it("names exits as the UAPI does, and reports with a key", () => {
    assert.deepEqual([exitName(2), exitKey(6), exitName(99)], ["KVM_EXIT_IO", "mmio", "KVM_EXIT_(99)"]);
  });
});
