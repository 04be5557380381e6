// Needs: a /dev/kvm of any kind. What a software KVM leaves to the monitor, in kernel code of a few
// bytes; hardware runs the same code by itself and must give the same results.
import assert from "node:assert/strict";
import { MSR_LSTAR, MSR_STAR, MSR_SYSCALL_MASK } from "../../vmm/fixups/syscall.js";
import { TINY_CODE_GPA, TINY_MMIO_GPA } from "../../vmm/fixups/tiny-vm.js";
import { explainExit } from "../../vmm/vcpu/explain-exit.js";
import { whyNoKvm } from "../helpers/kvm-guard.js";
import {
  HLT,
  KERNEL_PAGES_GPA,
  REPORT,
  SCRATCH_GPA,
  UNMAPPED_GPA,
  kernelGuest,
  type KernelGuest,
  type KernelGuestOptions,
} from "../helpers/kernel-guest.js";
import { skip } from "../helpers/skip.js";

const CR4_OSXSAVE = 1n << 18n;
const ZF = 1 << 6;
const AC = 1 << 18;
/** pushfq; pop rax; mov [rdi], eax */
const REPORT_FLAGS = [0x9c, 0x58, ...REPORT];
/** mov rax, r; mov [rdi], eax */
const REPORT_RCX = [0x48, 0x89, 0xc8, ...REPORT];
const REPORT_RDX = [0x48, 0x89, 0xd0, ...REPORT];
const vectors = { bp: 0x103, ud: 0x106, gp: 0x10d, pf: 0x10e } as const;

describe("kvm: fix-ups", function () {
  this.timeout(20_000);
  let guest: KernelGuest | undefined;

  before(function () {
    const reason = whyNoKvm();
    if (reason !== undefined) skip(this, reason);
  });
  afterEach(() => {
    guest?.close();
    guest = undefined;
  });

  function start(options: KernelGuestOptions): KernelGuest {
    guest = kernelGuest(options);
    return guest;
  }

  /** Runs kernel code that ends in HLT; the reports. */
  function run(code: number[], options: Omit<KernelGuestOptions, "code"> = {}): number[] {
    guest?.close();
    return start({ code: [...code, ...HLT], ...options }).run().reports;
  }

  it("the probe knows what is done by hand", () => {
    const { quirks } = start({ code: HLT });
    if (quirks === undefined) return;
    assert.ok(quirks.missing.length > 0 || quirks.syscallStaysInUserMode);
    for (const { offset, size } of quirks.xsaveComponents) assert.ok(offset >= 576 && offset + size <= 4096);
  });

  it("popcnt: register and memory, 16, 32 and 64 bits, and the zero flag", () => {
    const rax = 0xf0f0_1234;
    assert.deepEqual(run([0xf3, 0x48, 0x0f, 0xb8, 0xc8, ...REPORT_RCX], { registers: { rax } }), [13]);
    assert.deepEqual(
      run([0x66, 0xf3, 0x0f, 0xb8, 0xc8, ...REPORT_RCX], { registers: { rax, rcx: 0x7_0000 } }),
      [0x7_0005],
    );
    // mov qword [rsi], -1; popcnt rcx, [rsi + rbx*4 - 8] with rbx = 2
    const store = [0x48, 0xc7, 0x06, 0xff, 0xff, 0xff, 0xff];
    assert.deepEqual(
      run([...store, 0xf3, 0x48, 0x0f, 0xb8, 0x4c, 0x9e, 0xf8, ...REPORT_RCX], { registers: { rbx: 2 } }),
      [64],
    );
    const [flags = 0] = run([0xf3, 0x48, 0x0f, 0xb8, 0xc8, ...REPORT_FLAGS], { registers: { rax: 0 } });
    assert.equal(flags & (ZF | 0x895), ZF);
  });

  it("popcnt: a page that is not there is a page fault with its address", () => {
    // popcnt rcx, [rbx]; the handler reports the vector and the error code
    const reports = run([0xf3, 0x48, 0x0f, 0xb8, 0x0b], { registers: { rbx: UNMAPPED_GPA } });
    assert.deepEqual(reports, [vectors.pf, 0]);
    assert.equal(guest?.vcpu.getSregs().getBigUint64(232, true), BigInt(UNMAPPED_GPA));
  });

  it("stac and clac set and clear AC", () => {
    const [set = 0, cleared = AC] = run([0x0f, 0x01, 0xcb, ...REPORT_FLAGS, 0x0f, 0x01, 0xca, ...REPORT_FLAGS]);
    assert.deepEqual([set & AC, cleared & AC], [AC, 0]);
  });

  it("cmpxchg16b: exchanges what is equal, loads what is not, in both cases with the flag", () => {
    const compareAndSwap = [0xf0, 0x48, 0x0f, 0xc7, 0x0e];
    const equal = start({
      code: [...compareAndSwap, ...REPORT_FLAGS, ...HLT],
      registers: { rax: 1, rdx: 2, rbx: 3, rcx: 4 },
    });
    equal.memory.writeU64(SCRATCH_GPA, 1n);
    equal.memory.writeU64(SCRATCH_GPA + 8, 2n);
    assert.equal((equal.run().reports[0] ?? 0) & ZF, ZF);
    assert.deepEqual([equal.memory.readU64(SCRATCH_GPA), equal.memory.readU64(SCRATCH_GPA + 8)], [3n, 4n]);
    equal.close();
    const other = start({ code: [...compareAndSwap, ...REPORT, ...REPORT_RDX, ...HLT], registers: { rax: 1, rdx: 9 } });
    other.memory.writeU64(SCRATCH_GPA, 7n);
    other.memory.writeU64(SCRATCH_GPA + 8, 2n);
    assert.deepEqual(other.run().reports, [7, 2]);
  });

  it("cmpxchg16b: a misaligned operand is #GP, a missing page #PF for a write", () => {
    assert.deepEqual(run([0xf0, 0x48, 0x0f, 0xc7, 0x4e, 0x08]), [vectors.gp, 0]);
    assert.deepEqual(run([0xf0, 0x48, 0x0f, 0xc7, 0x0b], { registers: { rbx: UNMAPPED_GPA } }), [vectors.pf, 2]);
  });

  it("int3 is a trap: the saved address is the next instruction's", () => {
    const { reports } = start({ code: [0x90, 0xcc, ...HLT] }).run();
    assert.deepEqual(reports, [vectors.bp]);
    const rsp = Number(guest?.vcpu.getRegs().getBigUint64(48, true));
    assert.equal(guest?.memory.readU64(rsp), BigInt(TINY_CODE_GPA + 2));
  });

  it("fwait goes on, and raises what is pending", () => {
    assert.deepEqual(run([0x9b, ...REPORT], { registers: { rax: 5 } }), [5]);
  });

  it("xsetbv and xgetbv agree, and refuse what no processor has", () => {
    const cr4 = CR4_OSXSAVE;
    const set = [0x31, 0xc9, 0x0f, 0x01, 0xd1]; // xor ecx, ecx; xsetbv
    const get = [0x31, 0xc9, 0x0f, 0x01, 0xd0, ...REPORT];
    assert.deepEqual(run([...set, ...get], { cr4, registers: { rax: 3 } }), [3]);
    assert.deepEqual(run(set, { cr4, registers: { rax: 2 } }), [vectors.gp, 0]);
    assert.deepEqual(run([0xb9, 9, 0, 0, 0, 0x0f, 0x01, 0xd0], { cr4 }), [vectors.gp, 0]);
  });

  describe("xsave", () => {
    const cr4 = CR4_OSXSAVE;
    const AVX = { index: 2, offset: 576, size: 256 };
    const XSTATE_BV = 512;
    const xsave = [0x0f, 0xae, 0x26];
    const xrstor = [0x0f, 0xae, 0x2e];
    const all = { rax: 7, rdx: 0 };

    /** A guest whose registers hold known x87, SSE and AVX state. */
    function loaded(code: number[], registers = {}): KernelGuest {
      const started = start({ code: [...code, ...HLT], cr4, registers: { ...all, ...registers } });
      started.vcpu.setXcr0(7n);
      const state = started.vcpu.getXsave();
      // Not the initial value, or the processor may say that the component is not in use.
      state.setUint16(0, 0x27f, true);
      new Uint8Array(state.buffer).fill(0x11, 160, 416);
      new Uint8Array(state.buffer).fill(0x22, AVX.offset, AVX.offset + AVX.size);
      state.setBigUint64(XSTATE_BV, 7n, true);
      started.vcpu.setXsave(state);
      return started;
    }

    it("stores every component that is asked for, and no other", () => {
      const { memory, run: go } = loaded(xsave);
      go();
      const area = memory.slice(SCRATCH_GPA, 832);
      assert.ok(area.subarray(160, 416).every((byte) => byte === 0x11));
      assert.ok(area.subarray(576, 832).every((byte) => byte === 0x22));
      assert.equal(memory.readU64(SCRATCH_GPA + XSTATE_BV), 7n);
      guest?.close();
      const partial = loaded(xsave, { rax: 2 });
      partial.memory.slice(SCRATCH_GPA, 1024).fill(0xee);
      partial.memory.writeU64(SCRATCH_GPA + XSTATE_BV, 4n);
      partial.run();
      assert.ok(partial.memory.slice(SCRATCH_GPA + 576, 256).every((byte) => byte === 0xee));
      assert.equal(partial.memory.readU64(SCRATCH_GPA + XSTATE_BV), 6n);
    });

    it("what xsave has stored comes back by xrstor, the rest in its initial state", () => {
      const started = loaded(xrstor);
      started.memory.slice(SCRATCH_GPA + 576, 256).fill(0x5a);
      started.memory.writeU32(SCRATCH_GPA + 24, 0x1f80);
      started.memory.writeU64(SCRATCH_GPA + XSTATE_BV, 4n);
      started.run();
      const state = started.vcpu.getXsave();
      const bytes = new Uint8Array(state.buffer);
      assert.ok(bytes.subarray(576, 832).every((byte) => byte === 0x5a));
      assert.ok(bytes.subarray(160, 416).every((byte) => byte === 0));
    });

    it("refuses what the processor refuses", () => {
      const bad: [what: string, prepare: (started: KernelGuest) => void][] = [
        ["a component that is off", ({ memory }) => memory.writeU64(SCRATCH_GPA + XSTATE_BV, 1n << 40n)],
        ["the compacted format with a bad header", ({ memory }) => memory.writeU64(SCRATCH_GPA + 520, 1n << 20n)],
        ["reserved bits of MXCSR", ({ memory }) => memory.writeU32(SCRATCH_GPA + 24, 0xffff_ffff)],
      ];
      for (const [what, prepare] of bad) {
        const started = loaded(xrstor);
        prepare(started);
        assert.deepEqual(started.run().reports, [vectors.gp, 0], what);
        started.close();
      }
      guest = undefined;
      assert.deepEqual(loaded([0x48, 0x83, 0xc6, 0x08, ...xsave]).run().reports, [vectors.gp, 0], "misaligned");
    });

    it("faults on a page that is not there, and leaves the page before it alone", () => {
      const started = loaded(xsave, { rsi: UNMAPPED_GPA - 512 });
      started.memory.slice(UNMAPPED_GPA - 512, 512).fill(0xee);
      assert.deepEqual(started.run().reports, [vectors.pf, 2]);
      if (started.quirks !== undefined) {
        assert.ok(started.memory.slice(UNMAPPED_GPA - 512, 512).every((byte) => byte === 0xee));
      }
    });
  });

  describe("syscall", () => {
    const STAR = (0x0023n << 48n) | (0x0010n << 32n);
    /** mov eax, cs; mov [rdi], eax; sysretq */
    const ENTRY = [0x8c, 0xc8, ...REPORT, 0x48, 0x0f, 0x07];

    function userProgram(code: number[], entry = ENTRY): KernelGuest {
      const started = start({ code, cpl: 3 });
      started.memory.slice(KERNEL_PAGES_GPA, entry.length).set(entry);
      started.vcpu.setMsrs([
        [MSR_STAR, STAR],
        [MSR_LSTAR, BigInt(KERNEL_PAGES_GPA)],
        [MSR_SYSCALL_MASK, 0x4_7700n],
      ]);
      started.rearm();
      return started;
    }

    it("enters the kernel at its level, and SYSRET goes back", () => {
      // syscall; mov eax, cs; mov [rdi], eax; syscall; …
      const { run: go } = userProgram([0x0f, 0x05, 0x8c, 0xc8, ...REPORT, 0xeb, 0xf8]);
      const { reports } = go(4);
      assert.deepEqual(reports, [0x10, 0x33, 0x10, 0x33]);
    });

    it("a real page fault of the program reaches its handler", () => {
      const { run: go } = userProgram([0x8b, 0x04, 0x25, 0, 0, 0x0a, 0]); // mov eax, [0xa0000]
      assert.deepEqual(go(2).reports, [vectors.pf, 4]);
    });

    it("a jump to the entry smuggles no privileged flags in", () => {
      // mov ecx, CODE+…; mov r11d, 0x3200 (IOPL 3); mov eax, entry; jmp rax: on hardware a page fault
      const code = [...[0xb9, 0, 0, 1, 0], ...[0x41, 0xbb, 0, 0x32, 0, 0], ...[0xb8, 0, 0, 0x08, 0], ...[0xff, 0xe0]];
      // The entry reports R11: mov rax, r11; mov [rdi], eax; hlt
      const { run: go } = userProgram(code, [0x4c, 0x89, 0xd8, ...REPORT, ...HLT]);
      const [first] = go(1).reports;
      assert.ok(first !== undefined, "neither the entry nor the handler was reached");
      if (first !== vectors.pf) assert.equal(first & 0x3000, 0);
    });

    it("a return address outside user space is no system call", () => {
      // mov rcx, -1; mov eax, entry; jmp rax
      const code = [0x48, 0xc7, 0xc1, 0xff, 0xff, 0xff, 0xff, 0xb8, 0, 0, 0x08, 0, 0xff, 0xe0];
      assert.equal(userProgram(code).run(1).reports[0], vectors.pf);
    });
  });

  it("page tables that lead outside RAM, or in circles, are faults and nothing worse", () => {
    const started = start({ code: [0xf3, 0x48, 0x0f, 0xb8, 0x0b, ...HLT], registers: { rbx: 0x4000_0000 } });
    // PDPT[1] -> a directory outside RAM; then -> the PDPT itself.
    started.memory.writeU64(0x2008, 0x7fff_f000_0007n);
    assert.equal(started.run(1).reports[0], vectors.pf);
    started.close();
    const circle = start({ code: [0xf3, 0x48, 0x0f, 0xb8, 0x0b, ...HLT], registers: { rbx: 0x4000_0000 } });
    circle.memory.writeU64(0x2008, 0x2007n);
    const [first] = circle.run(1).reports;
    assert.ok(first === vectors.pf || first === undefined || first === vectors.gp, String(first));
  });

  it("an instruction that nothing helps is named, with its bytes and a way out", function () {
    const started = start({ code: [0x0f, 0x01, 0xf9, ...HLT] }); // rdtscp
    if (started.quirks === undefined) skip(this, "hardware needs no help");
    assert.throws(() => started.run(), /INTERNAL_ERROR/);
    const { message, cure } = explainExit(started.vcpu, 0);
    assert.match(message, /RDTSCP, bytes 0f01f9.*\n.*rip=0x10000 /);
    assert.match(cure ?? "", /clearcpuid=\S*\b59\b.*--accel lab/);
  });

  it("memory that is nobody's is #GP for an instruction done by hand", function () {
    const started = start({ code: [0xf3, 0x48, 0x0f, 0xb8, 0x0f, ...HLT] });
    if (started.quirks === undefined) skip(this, "hardware needs no help");
    assert.deepEqual(started.run().reports, [vectors.gp, 0], `popcnt of 0x${TINY_MMIO_GPA.toString(16)}`);
  });
});
