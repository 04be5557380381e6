// Needs: nothing. A stopped vCPU's registers in the page that it shares with KVM.
import assert from "node:assert/strict";
import { GuestRegisters, RAX, RBX, RCX, RDX, R11, RSP } from "../../../vmm/fixups/guest-registers.js";
import { decode, type Instruction } from "../../../vmm/fixups/instruction.js";
import {
  KVM_SYNC_X86_REGS,
  KVM_SYNC_X86_SREGS,
  kvm_run,
  kvm_segment,
  kvm_sregs,
  kvm_sync_regs,
} from "../../../vmm/sys/kvm-abi.js";
import { fixupRig } from "../../helpers/fixup-rig.js";

const SREGS = kvm_run.s + kvm_sync_regs.sregs;
/** In the order of instructions. */
const NAMES = [
  ...(["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi"] as const),
  ...(["r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"] as const),
];

const instructionOf = (...bytes: number[]): Instruction => {
  const instruction = decode(Uint8Array.from(bytes));
  assert.ok(instruction !== undefined);
  return instruction;
};

describe("guest registers", () => {
  it("the general ones by number, each its own, and only they become dirty", () => {
    const { registers, set, get, run } = fixupRig();
    NAMES.forEach((name, number) => set(name, 0x1000n + BigInt(number)));
    NAMES.forEach((_, number) => assert.equal(registers.gpr(number), 0x1000n + BigInt(number)));
    assert.equal(run.loadU64(kvm_run.kvm_dirty_regs), 0n);
    NAMES.forEach((name, number) => {
      registers.setGpr(number, 0xffff_0000_0000_0000n + BigInt(number));
      assert.equal(get(name), 0xffff_0000_0000_0000n + BigInt(number));
    });
    assert.equal(run.loadU64(kvm_run.kvm_dirty_regs), BigInt(KVM_SYNC_X86_REGS));
    assert.deepEqual(
      [RAX, RCX, RDX, RBX, RSP, R11].map((number) => NAMES[number]),
      ["rax", "rcx", "rdx", "rbx", "rsp", "r11"],
    );
    registers.setGpr(RAX, -1n);
    assert.equal(get("rax"), 2n ** 64n - 1n);
  });

  it("RIP and RFLAGS", () => {
    const { registers, set, get, run } = fixupRig();
    set("rip", 5n);
    set("rflags", 6n);
    assert.deepEqual([registers.rip, registers.rflags], [5n, 6n]);
    registers.rip = 2n ** 64n + 7n;
    registers.rflags = 0x246n;
    assert.deepEqual([get("rip"), get("rflags")], [7n, 0x246n]);
    assert.equal(run.loadU64(kvm_run.kvm_dirty_regs), BigInt(KVM_SYNC_X86_REGS));
  });

  it("control registers; a pending interrupt of the past is not queued again with them", () => {
    const { registers, setControl, run } = fixupRig();
    for (const [index, name] of (["cr0", "cr2", "cr3", "cr4"] as const).entries()) setControl(name, BigInt(index + 1));
    assert.deepEqual([registers.cr0, registers.control("cr2"), registers.cr3, registers.cr4], [1n, 2n, 3n, 4n]);
    for (let word = 0; word < 4; word++) run.storeU64(SREGS + kvm_sregs.interrupt_bitmap + 8 * word, 0xffn);
    registers.setGpr(RAX, 1n);
    assert.equal(run.loadU64(SREGS + kvm_sregs.interrupt_bitmap), 0xffn);
    run.storeU64(SREGS + kvm_sregs.interrupt_bitmap + 32, 0x5aa5n);
    registers.setControl("cr2", 0x1234n);
    assert.equal(run.loadU64(SREGS + kvm_sregs.cr2), 0x1234n);
    for (let word = 0; word < 4; word++) {
      assert.equal(run.loadU64(SREGS + kvm_sregs.interrupt_bitmap + 8 * word), 0n, String(word));
    }
    assert.equal(run.loadU64(kvm_run.kvm_dirty_regs), BigInt(KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS));
    // What lies behind the bitmap is left alone.
    assert.equal(run.loadU64(SREGS + kvm_sregs.interrupt_bitmap + 32), 0x5aa5n);
  });

  it("asks KVM for both sets of registers at every exit", () => {
    const { run } = fixupRig();
    GuestRegisters.enable(run);
    assert.equal(run.loadU64(kvm_run.kvm_valid_regs), BigInt(KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS));
  });

  it("level, mode, interrupt table", () => {
    const { registers, setSegment, setIdt } = fixupRig();
    assert.deepEqual([registers.cpl, registers.isLongMode], [0, true]);
    setSegment("ss", "dpl", 3n);
    setSegment("cs", "l", 0n);
    setIdt(0xffff_8000_0000_1000n, 0xfff);
    assert.deepEqual([registers.cpl, registers.isLongMode], [3, false]);
    assert.deepEqual([registers.idtBase, registers.idtLimit], [0xffff_8000_0000_1000n, 0xfff]);
  });

  it("flat segments are what SYSCALL loads. AMD64 APM vol. 3", () => {
    for (const [name, type, db, l] of [
      ["cs", 11, 0, 1],
      ["ss", 3, 1, 0],
    ] as const) {
      const { registers, run, setSegment } = fixupRig();
      setSegment(name, "base", 0x1000n);
      setSegment(name, "unusable", 1n);
      registers.setFlatSegment(name, 0x10, 3);
      const at = SREGS + kvm_sregs[name];
      const field = (field: keyof typeof kvm_segment, size: 1 | 2 | 4): number =>
        run.load(at + kvm_segment[field], size);
      assert.equal(registers.segmentBase(name), 0n);
      assert.deepEqual(
        {
          limit: field("limit", 4),
          selector: field("selector", 2),
          type: field("type", 1),
          present: field("present", 1),
          dpl: field("dpl", 1),
          db: field("db", 1),
          s: field("s", 1),
          l: field("l", 1),
          g: field("g", 1),
          unusable: field("unusable", 1),
        },
        { limit: 0xffff_ffff, selector: 0x10, type, present: 1, dpl: 3, db, s: 1, l, g: 1, unusable: 0 },
      );
      assert.equal(run.loadU64(kvm_run.kvm_dirty_regs), BigInt(KVM_SYNC_X86_SREGS));
    }
  });

  it("linear addresses: base, index, displacement, RIP, segments, 32 bits", () => {
    const { registers, set, setSegment } = fixupRig();
    set("rsi", 0x1000n);
    set("rbx", 0x10n);
    set("rip", 0x4000n);
    setSegment("fs", "base", 0x10_0000n);
    setSegment("gs", "base", 2n ** 64n - 0x1000n);
    const address = (...bytes: number[]): bigint => registers.linearAddress(instructionOf(...bytes));
    assert.equal(address(0x0f, 0xae, 0x26), 0x1000n);
    assert.equal(address(0x0f, 0xae, 0x66, 0xf8), 0xff8n);
    assert.equal(address(0x0f, 0xae, 0x64, 0xde, 0x08), 0x1088n);
    // mod 0, base none: displacement alone, and with an index.
    assert.equal(address(0x0f, 0xae, 0x24, 0x25, 0x00, 0x20, 0, 0), 0x2000n);
    assert.equal(address(0x0f, 0xae, 0x24, 0x9d, 0x00, 0x20, 0, 0), 0x2040n);
    // RIP-relative: from the end of the instruction, seven bytes.
    assert.equal(address(0x0f, 0xae, 0x25, 0x10, 0, 0, 0), 0x4017n);
    assert.equal(address(0x64, 0x0f, 0xae, 0x26), 0x10_1000n);
    assert.equal(address(0x65, 0x0f, 0xae, 0x26), 0n);
    set("rsi", 0xffff_ffff_0000_1000n);
    assert.equal(address(0x67, 0x0f, 0xae, 0x26), 0x1000n);
    assert.equal(address(0x64, 0x67, 0x0f, 0xae, 0x26), 0x10_1000n);
    set("rsi", 2n ** 64n - 8n);
    assert.equal(address(0x0f, 0xae, 0x66, 0x10), 8n);
    assert.throws(() => registers.linearAddress(instructionOf(0x0f, 0x01, 0xcb)), TypeError);
  });
});
