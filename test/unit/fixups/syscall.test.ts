// Needs: nothing. SYSCALL finished by hand, on the page fault that a software KVM makes of it.
import assert from "node:assert/strict";
import { GuestFault } from "../../../vmm/fixups/guest-fault.js";
import { MSR_LSTAR, MSR_STAR, MSR_SYSCALL_MASK, SyscallFixup } from "../../../vmm/fixups/syscall.js";
import { kvm_run, kvm_segment, kvm_sregs, kvm_sync_regs } from "../../../vmm/sys/kvm-abi.js";
import { PML4, PML5, PRESENT, UNMAPPED, WRITABLE, fixupRig, type FixupRig } from "../../helpers/fixup-rig.js";

const SREGS = kvm_run.s + kvm_sync_regs.sregs;
const IDT = 0x9000;
const HANDLER = 0xffff_8000_1234_5678n;
const STACK = 0xa000;
const ENTRY = 0xffff_8000_0000_1000n;
const STAR = (0x23n << 48n) | (0x13n << 32n) | 0xdead_beefn;
const LA57 = 1n << 12n;

interface Frame {
  error?: bigint;
  rip?: bigint;
  cs?: bigint;
  cr2?: bigint;
}

/** Stopped at the page-fault handler, which the gate names; RCX and R11 as SYSCALL leaves them. */
function stopped(frame: Frame = {}, handler = HANDLER): { m: FixupRig; fixup: SyscallFixup } {
  const m = fixupRig();
  m.msrs.set(MSR_STAR, STAR).set(MSR_LSTAR, ENTRY).set(MSR_SYSCALL_MASK, 0x4_7700n);
  m.setIdt(BigInt(IDT), 0xfff);
  setGate(m, handler);
  m.memory.writeU64(STACK, frame.error ?? 0x15n);
  m.memory.writeU64(STACK + 8, frame.rip ?? ENTRY);
  m.memory.writeU64(STACK + 16, frame.cs ?? 0x33n);
  m.memory.writeU64(STACK + 24, 0x246n);
  m.memory.writeU64(STACK + 32, 0x7fff_0000n);
  m.memory.writeU64(STACK + 40, 0x2bn);
  m.set("rsp", BigInt(STACK));
  m.set("rcx", 0x40_1000n);
  m.set("r11", 0x246n);
  m.set("rip", handler);
  m.setControl("cr2", frame.cr2 ?? ENTRY);
  const fixup = new SyscallFixup(m.kvm);
  fixup.follow(m);
  return { m, fixup };
}

function setGate(m: FixupRig, handler: bigint, isPresent = true, idt = IDT): void {
  const low = (handler & 0xffffn) | (0x10n << 16n) | (((handler >> 16n) & 0xffffn) << 48n);
  m.memory.writeU64(idt + 14 * 16, low | (isPresent ? 0x8e00n << 32n : 0x0e00n << 32n));
  m.memory.writeU64(idt + 14 * 16 + 8, 0xffff_ffff_0000_0000n | (handler >> 32n));
}

describe("syscall done by hand", () => {
  it("the breakpoint follows the page-fault gate, and is set only where it has moved", () => {
    const { m, fixup } = stopped();
    assert.deepEqual(m.log, ["break 0xffff800012345678"]);
    fixup.follow(m);
    assert.equal(m.log.length, 1);
    setGate(m, 0x1_2345_6789n);
    fixup.follow(m);
    setGate(m, 0x1111n, false);
    fixup.follow(m);
    assert.deepEqual(m.log.slice(1), ["break 0x123456789"]);
    // Another interrupt table, another gate.
    setGate(m, 0x2222n);
    m.setIdt(0xb000n, 0xfff);
    fixup.follow(m);
    assert.equal(m.log.length, 2, "a gate of zeroes is not there");
    m.setIdt(BigInt(IDT), 0xfff);
    fixup.follow(m);
    assert.deepEqual(m.log.slice(2), ["break 0x2222"]);
  });

  it("a gate that comes later is found, also in a table at address 0", () => {
    for (const table of [IDT, 0]) {
      const m = fixupRig();
      m.msrs.set(MSR_STAR, STAR).set(MSR_LSTAR, ENTRY).set(MSR_SYSCALL_MASK, 0x4_7700n);
      m.setIdt(BigInt(table), 0xfff);
      m.setPage(table, 0n);
      setGate(m, HANDLER, true, table);
      const fixup = new SyscallFixup(m.kvm);
      fixup.follow(m);
      assert.deepEqual(m.log, []);
      m.setPage(table, BigInt(table) | PRESENT);
      fixup.follow(m);
      assert.deepEqual(m.log, ["break 0xffff800012345678"]);
    }
  });

  it("no breakpoint without long mode, without an entry, with too short a table or one that is not there", () => {
    const armed = (prepare: (m: FixupRig) => void): number => {
      const { m } = stopped();
      m.log.length = 0;
      prepare(m);
      new SyscallFixup(m.kvm).follow(m);
      return m.log.length;
    };
    assert.equal(
      armed(() => undefined),
      1,
    );
    assert.equal(
      armed((m) => m.setSegment("cs", "l", 0n)),
      0,
    );
    assert.equal(
      armed((m) => m.msrs.set(MSR_LSTAR, 0n)),
      0,
    );
    assert.equal(
      armed((m) => m.setIdt(BigInt(IDT), 15 * 16 - 1)),
      1,
    );
    assert.equal(
      armed((m) => m.setIdt(BigInt(IDT), 15 * 16 - 2)),
      0,
    );
    assert.equal(
      armed((m) => m.setIdt(BigInt(UNMAPPED), 0xfff)),
      0,
    );
    // Off its alignment: nobody has a gate over two pages.
    assert.equal(
      armed((m) => m.setIdt(BigInt(IDT + 8), 0xfff)),
      0,
    );
    assert.equal(
      armed((m) => m.setPage(IDT, 0xf_f000_0000n | PRESENT)),
      0,
    );
    // Pages of the kernel alone, and of programs under SMAP, are read all the same.
    assert.equal(
      armed((m) => m.setPage(IDT, BigInt(IDT) | PRESENT)),
      1,
    );
    assert.equal(
      armed((m) => m.setControl("cr4", 1n << 21n)),
      1,
    );
    assert.equal(
      armed((m) => m.setSegment("ss", "dpl", 3n)),
      1,
    );
  });

  it("the fetch of the entry becomes the system call", () => {
    for (const error of [0x5n, 0x15n]) {
      const { m, fixup } = stopped({ error });
      assert.equal(fixup.apply(m), "syscall");
      assert.deepEqual(
        (["rip", "rsp", "rcx", "r11", "rflags"] as const).map((name) => m.get(name)),
        // The mask takes IF and others away; bit 1 is always set.
        [ENTRY, 0x7fff_0000n, 0x40_1000n, 0x246n, 0x46n],
      );
      const selector = (name: "cs" | "ss"): number => m.run.load(SREGS + kvm_sregs[name] + kvm_segment.selector, 2);
      assert.deepEqual([selector("cs"), selector("ss")], [0x10, 0x18]);
      assert.equal(m.registers.cpl, 0);
    }
  });

  it("anything else is the page fault that it is", () => {
    const others: [what: string, frame: Frame][] = [
      ["a read", { error: 0x4n }],
      ["a page that is not there", { error: 0x14n }],
      ["a write", { error: 0x7n }],
      ["of the kernel", { error: 0x11n }],
      ["with a key", { error: 0x35n }],
      ["elsewhere", { rip: ENTRY + 1n }],
      ["about another address", { cr2: ENTRY + 1n }],
      ["from level 0", { cs: 0x10n }],
      ["from level 1", { cs: 0x31n }],
      ["from level 2", { cs: 0x32n }],
    ];
    for (const [what, frame] of others) {
      // The handler begins with an instruction that is stepped over.
      const { m, fixup } = stopped(frame, 0x5000n);
      m.memory.writeU8(0x5000, 0x90);
      assert.equal(fixup.apply(m), "page_fault", what);
      assert.deepEqual([m.get("rip"), m.get("rsp")], [0x5001n, BigInt(STACK)], what);
    }
    const { m, fixup } = stopped({}, 0x5000n);
    m.memory.writeU8(0x5000, 0x90);
    m.setSegment("ss", "dpl", 3n);
    assert.equal(fixup.apply(m), "page_fault", "not in the handler yet");
  });

  it("smuggles nothing in: no flags of the kernel's, no return address that is not a program's", () => {
    const { m, fixup } = stopped();
    m.set("r11", 2n ** 64n - 1n);
    assert.equal(fixup.apply(m), "syscall");
    // IF is always on: IOPL, VM, VIF, VIP and RF never.
    assert.equal(m.get("r11"), (2n ** 64n - 1n) & ~0x1b_3000n);
    const back = (rcx: bigint, cr4 = 0n): string | undefined => {
      const { m, fixup } = stopped({}, 0x5000n);
      m.memory.writeU8(0x5000, 0x90);
      m.set("rcx", rcx);
      m.setControl("cr4", cr4);
      if (cr4 !== 0n) m.setControl("cr3", BigInt(PML5));
      return fixup.apply(m);
    };
    assert.equal(back((1n << 47n) - 1n), "syscall");
    assert.equal(back(1n << 47n), "page_fault");
    assert.equal(back(2n ** 64n - 1n), "page_fault");
    assert.equal(back((1n << 56n) - 1n, LA57), "syscall");
    assert.equal(back(1n << 56n, LA57), "page_fault");
  });

  it("takes the MSRs as the guest has written them last", () => {
    const { m, fixup } = stopped();
    fixup.onMsrWrite(MSR_STAR, 0x0040n << 32n);
    fixup.onMsrWrite(MSR_SYSCALL_MASK, 0x44n);
    fixup.onMsrWrite(0x10, 5n);
    assert.equal(fixup.apply(m), "syscall");
    assert.equal(m.run.load(SREGS + kvm_sregs.cs + kvm_segment.selector, 2), 0x40);
    assert.equal(m.get("rflags"), 0x202n);
    const other = stopped({ rip: 0x9999n, cr2: 0x9999n });
    other.fixup.onMsrWrite(MSR_LSTAR, 0x9999n);
    assert.equal(other.fixup.apply(other.m), "syscall");
    assert.equal(other.m.get("rip"), 0x9999n);
  });

  it("only at the breakpoint", () => {
    const { m, fixup } = stopped();
    m.set("rip", HANDLER + 1n);
    assert.equal(fixup.apply(m), undefined);
    assert.equal(new SyscallFixup(m.kvm).apply(m), undefined);
  });

  it("steps over what handlers begin with, and does it", () => {
    const AC = 1n << 18n;
    const DF = 1n << 10n;
    const first: [bytes: number[], cleared: bigint][] = [
      [[0xf3, 0x0f, 0x1e, 0xfa], 0n],
      [[0x0f, 0x01, 0xca], AC],
      [[0x0f, 0x1f, 0x00], 0n],
      [[0x90], 0n],
      [[0xfc], DF],
    ];
    for (const [bytes, cleared] of first) {
      const { m, fixup } = stopped({ error: 2n }, 0x5000n);
      m.memory.slice(0x5000, 4).fill(0xcc);
      m.memory.slice(0x5000, bytes.length).set(bytes);
      m.set("rflags", 0x246n | AC | DF);
      assert.equal(fixup.apply(m), "page_fault");
      assert.deepEqual(
        [m.get("rip"), m.get("rflags")],
        [0x5000n + BigInt(bytes.length), (0x246n | AC | DF) & ~cleared],
      );
    }
    const { m, fixup } = stopped({ error: 2n }, 0x5000n);
    m.memory.slice(0x5000, 4).set([0x0f, 0x01, 0xcb, 0x90]);
    assert.equal(fixup.apply(m), undefined, "stac is none of them");
    assert.equal(m.get("rip"), 0x5000n);
  });

  it("a program that jumps to a clac gets what clac gives it", () => {
    const { m, fixup } = stopped({}, 0x5000n);
    m.memory.slice(0x5000, 3).set([0x0f, 0x01, 0xca]);
    m.setSegment("ss", "dpl", 3n);
    assert.throws(
      () => fixup.apply(m),
      (error) => error instanceof GuestFault && error.vector === 6,
    );
  });

  it("a stack that is not there is a fault of the guest's", () => {
    const { m, fixup } = stopped();
    m.set("rsp", BigInt(UNMAPPED));
    assert.throws(
      () => fixup.apply(m),
      (error) => error instanceof GuestFault && error.vector === 14 && error.address === BigInt(UNMAPPED),
    );
    // The frame has 48 bytes, no more.
    const last = stopped();
    last.m.memory.slice(UNMAPPED - 48, 48).set(last.m.memory.slice(STACK, 48));
    last.m.set("rsp", BigInt(UNMAPPED - 48));
    assert.equal(last.fixup.apply(last.m), "syscall");
    assert.ok((last.m.memory.readU64(PML4) & (PRESENT | WRITABLE)) !== 0n);
  });
});
