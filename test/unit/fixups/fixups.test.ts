// Needs: nothing. Which exit leads to which fix-up, what is counted, what is injected.
import assert from "node:assert/strict";
import { failedInstruction } from "../../../vmm/fixups/failed-instruction.js";
import { FIXUP_NAMES } from "../../../vmm/fixups/fixup.js";
import { Fixups } from "../../../vmm/fixups/fixups.js";
import type { Quirks } from "../../../vmm/fixups/quirks.js";
import { MSR_LSTAR, MSR_STAR } from "../../../vmm/fixups/syscall.js";
import { KVM_EXIT_DEBUG, KVM_EXIT_INTERNAL_ERROR, KVM_EXIT_X86_WRMSR, kvm_run } from "../../../vmm/sys/kvm-abi.js";
import { UNMAPPED, fixupRig, type FixupRig } from "../../helpers/fixup-rig.js";

const KVM_EXIT_HLT = 5;
const ALL: Quirks = {
  missing: FIXUP_NAMES.filter((name) => name !== "syscall" && name !== "page_fault"),
  syscallStaysInUserMode: true,
  tscKhz: 0,
  xsaveComponents: [],
};

/** As KVM leaves an instruction that it cannot emulate. */
function fail(m: FixupRig, bytes: readonly number[], { count = bytes.length, flags = 1n, ndata = 4 } = {}): void {
  m.run.store(kvm_run.internal_ndata, 4, ndata);
  m.run.storeU64(kvm_run.emulation_failure_flags, flags);
  m.run.store(kvm_run.emulation_failure_insn_size, 1, count);
  bytes.forEach((byte, index) => m.run.store(kvm_run.emulation_failure_insn_bytes + index, 1, byte));
  m.set("rip", 0x7000n);
}

function fixups(m: FixupRig, quirks: Partial<Quirks> = {}): { units: Fixups; counts: () => Record<string, number> } {
  const counters = new Int32Array(new SharedArrayBuffer(4 * FIXUP_NAMES.length));
  const lock = new Int32Array(new SharedArrayBuffer(4));
  return {
    units: new Fixups(m.kvm, m.memory, { ...ALL, ...quirks }, counters, lock, 0),
    counts: () =>
      Object.fromEntries(
        FIXUP_NAMES.map((name, index): [string, number] => [name, counters[index] ?? 0]).filter(
          ([, count]) => count !== 0,
        ),
      ),
  };
}

describe("fix-ups", () => {
  it("the failed instruction is what KVM says it is, 15 bytes at most", () => {
    const m = fixupRig();
    const bytes = Array.from({ length: 15 }, (_, index) => index + 1);
    fail(m, bytes.slice(0, 3));
    assert.deepEqual([...failedInstruction(m.kvm)], [1, 2, 3]);
    fail(m, bytes, { count: 255 });
    assert.deepEqual([...failedInstruction(m.kvm)], bytes);
    fail(m, bytes, { ndata: 3 });
    assert.equal(failedInstruction(m.kvm).length, 15);
    fail(m, bytes, { ndata: 2 });
    assert.equal(failedInstruction(m.kvm).length, 0);
    fail(m, bytes, { flags: 0n });
    assert.equal(failedInstruction(m.kvm).length, 0);
    fail(m, bytes, { flags: 2n });
    assert.equal(failedInstruction(m.kvm).length, 0);
    fail(m, bytes, { flags: 3n });
    assert.equal(failedInstruction(m.kvm).length, 15);
  });

  it("does the instruction, and counts it", () => {
    const m = fixupRig();
    const { units, counts } = fixups(m);
    fail(m, [0x0f, 0x01, 0xcb]);
    assert.equal(units.answer(KVM_EXIT_INTERNAL_ERROR), true);
    assert.equal(m.get("rip"), 0x7003n);
    fail(m, [0xf3, 0x48, 0x0f, 0xb8, 0xc8]);
    assert.equal(units.answer(KVM_EXIT_INTERNAL_ERROR), true);
    assert.equal(units.answer(KVM_EXIT_INTERNAL_ERROR), true);
    assert.deepEqual(counts(), { smap: 1, popcnt: 2 });
    assert.deepEqual(m.log, []);
  });

  it("injects the exception that the processor would raise, with CR2 for a page fault alone", () => {
    const m = fixupRig();
    const { units, counts } = fixups(m);
    fail(m, [0xcc]);
    assert.equal(units.answer(KVM_EXIT_INTERNAL_ERROR), true);
    m.setControl("cr2", 0x77n);
    m.set("rsi", 8n);
    fail(m, [0xf0, 0x48, 0x0f, 0xc7, 0x0e]);
    assert.equal(units.answer(KVM_EXIT_INTERNAL_ERROR), true);
    assert.equal(m.registers.control("cr2"), 0x77n);
    m.set("rsi", BigInt(UNMAPPED));
    assert.equal(units.answer(KVM_EXIT_INTERNAL_ERROR), true);
    assert.equal(m.registers.control("cr2"), BigInt(UNMAPPED));
    assert.deepEqual(m.log, ["inject 3 undefined", "inject 13 0", "inject 14 2"]);
    assert.deepEqual(counts(), { int3: 1, cmpxchg16b: 2 });
  });

  it("leaves alone what nobody knows, what need not be done, and 32-bit code", () => {
    const m = fixupRig();
    const { units, counts } = fixups(m);
    fail(m, [0x0f, 0x01, 0xf9]);
    assert.equal(units.answer(KVM_EXIT_INTERNAL_ERROR), false);
    fail(m, []);
    assert.equal(units.answer(KVM_EXIT_INTERNAL_ERROR), false);
    assert.equal(units.answer(KVM_EXIT_HLT), false);
    fail(m, [0x0f, 0x01, 0xcb]);
    assert.equal(fixups(m, { missing: ["popcnt"] }).units.answer(KVM_EXIT_INTERNAL_ERROR), false);
    m.setSegment("cs", "l", 0n);
    assert.equal(units.answer(KVM_EXIT_INTERNAL_ERROR), false);
    assert.deepEqual([m.get("rip"), counts(), m.log], [0x7000n, {}, []]);
  });

  it("writes of MSRs are done and answered; what KVM refuses is #GP for the guest", () => {
    const m = fixupRig();
    const { units } = fixups(m);
    const write = (index: number, value: bigint): number => {
      m.run.store(kvm_run.msr_index, 4, index);
      m.run.storeU64(kvm_run.msr_data, value);
      m.run.store(kvm_run.msr_error, 1, 0xff);
      assert.equal(units.answer(KVM_EXIT_X86_WRMSR), true);
      return m.run.load(kvm_run.msr_error, 1);
    };
    assert.equal(write(MSR_STAR, 0x10n << 32n), 0);
    assert.equal(m.msrs.get(MSR_STAR), 0x10n << 32n);
    assert.equal(write(0x666, 1n), 1);
  });

  it("breakpoints are SYSCALL's, where it has to be done by hand", () => {
    const m = fixupRig();
    m.msrs.set(MSR_LSTAR, 0x1_0000n);
    m.setIdt(0x9000n, 0xfff);
    m.memory.writeU64(0x9000 + 14 * 16, 0x8e00_0010_5000n);
    m.memory.writeU8(0x5000, 0x90);
    m.set("rsp", 0xa000n);
    const { units, counts } = fixups(m);
    units.observe();
    assert.deepEqual(m.log, ["break 0x5000"]);
    m.set("rip", 0x5000n);
    assert.equal(units.answer(KVM_EXIT_DEBUG), true);
    assert.deepEqual([m.get("rip"), counts()], [0x5001n, { page_fault: 1 }]);
    assert.equal(units.answer(KVM_EXIT_DEBUG), false);
    m.log.length = 0;
    const plain = fixups(m, { syscallStaysInUserMode: false }).units;
    plain.observe();
    m.set("rip", 0x5000n);
    assert.deepEqual([plain.answer(KVM_EXIT_DEBUG), m.log], [false, []]);
  });
});
