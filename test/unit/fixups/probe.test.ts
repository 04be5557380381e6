// Needs: nothing. What the probe makes of a KVM's answers; test/kvm/fixups.test.ts asks a real one.
import assert from "node:assert/strict";
import { probeQuirks } from "../../../vmm/fixups/probe.js";
import { TINY_CODE_GPA } from "../../../vmm/fixups/tiny-vm.js";
import type { KvmSystem } from "../../../vmm/kvm/system.js";
import {
  KVM_EXIT_INTERNAL_ERROR,
  KVM_EXIT_MMIO,
  KVM_EXIT_SHUTDOWN,
  SIZEOF_KVM_REGS,
  SIZEOF_KVM_SREGS,
  kvm_regs,
  kvm_sregs,
} from "../../../vmm/sys/kvm-abi.js";

/** Each piece of the probe's code has so many bytes. */
const PIECE = 32;
const FIRST_CANDIDATE = 3;
const NAMES = ["xcr", "xsave", "smap", "cmpxchg16b", "popcnt", "fwait", "int3"];
/** Feature bits of leaf 1 (ECX) and leaf 7 (EBX) that a candidate needs. */
const LEAF_1 = (1 << 26) | (1 << 13) | (1 << 23);
const LEAF_7 = 1 << 20;

interface Host {
  /** Exits of candidates by name; MMIO, the report, unless said. */
  exits?: Readonly<Record<string, number>>;
  leaf1?: number;
  leaf7?: number;
  /** CS that the entry of SYSCALL reports; undefined: it is not reached. */
  cs?: number;
  cpuid?: readonly Record<string, number>[];
}

/** Plays KVM: what was run, and what the vCPU was given. */
function host({ exits = {}, leaf1 = LEAF_1, leaf7 = LEAF_7, cs = 0x10, cpuid = [] }: Host): {
  system: KvmSystem;
  tried: string[];
  cr4: bigint[];
  isClosed: () => boolean;
} {
  const tried: string[] = [];
  const cr4: bigint[] = [];
  let closed = 0;
  let regs = new DataView(new ArrayBuffer(SIZEOF_KVM_REGS));
  const run = { exitReason: 0, loadU32: () => cs };
  const vcpu = {
    run,
    setCpuid: () => undefined,
    resetFpu: () => undefined,
    setMsrs: () => undefined,
    getSregs: () => new DataView(new ArrayBuffer(SIZEOF_KVM_SREGS)),
    setSregs: (sregs: DataView) => void cr4.push(sregs.getBigUint64(kvm_sregs.cr4, true)),
    getRegs: () => regs,
    setRegs: (given: DataView<ArrayBuffer>) => (regs = new DataView(given.buffer.slice(0))),
    tscKhz: () => 2_400_000,
    close: () => closed++,
    enter: () => {
      const piece = (Number(regs.getBigUint64(kvm_regs.rip, true)) - TINY_CODE_GPA) / PIECE;
      const name = NAMES[piece - FIRST_CANDIDATE];
      run.exitReason = KVM_EXIT_MMIO;
      if (piece === 0) {
        const leaf = regs.getBigUint64(kvm_regs.rax, true);
        const answer = new DataView(new ArrayBuffer(SIZEOF_KVM_REGS));
        if (leaf === 1n) answer.setUint32(kvm_regs.rcx, leaf1, true);
        if (leaf === 7n) answer.setUint32(kvm_regs.rbx, leaf7, true);
        regs = answer;
      } else if (piece === 1) {
        if (cs < 0) run.exitReason = KVM_EXIT_SHUTDOWN;
      } else if (name !== undefined) {
        tried.push(name);
        run.exitReason = exits[name] ?? KVM_EXIT_MMIO;
      } else assert.fail(`piece ${String(piece)}`);
      return true;
    },
  };
  const vm = { setMemoryRegion: () => undefined, createVcpu: () => vcpu, close: () => closed++ };
  const system = {
    createVm: () => vm,
    vcpuMmapSize: () => 4096,
    supportedCpuid: () => cpuid,
  } as unknown as KvmSystem;
  return { system, tried, cr4, isClosed: () => closed === 2 };
}

describe("probe", () => {
  it("hardware leaves nothing to do; everything was tried once, and the guest is gone", () => {
    const { system, tried, isClosed } = host({});
    assert.equal(probeQuirks(system), undefined);
    assert.deepEqual(tried, NAMES);
    assert.ok(isClosed());
  });

  it("what ends in an emulation failure is missing; a processor that shuts down at INT3 knows it", () => {
    const failing = Object.fromEntries(NAMES.map((name) => [name, KVM_EXIT_INTERNAL_ERROR]));
    assert.deepEqual(probeQuirks(host({ exits: failing }).system)?.missing, NAMES);
    for (const name of NAMES) {
      const quirks = probeQuirks(host({ exits: { [name]: KVM_EXIT_INTERNAL_ERROR } }).system);
      assert.deepEqual(quirks, {
        missing: [name],
        syscallStaysInUserMode: false,
        tscKhz: 2_400_000,
        xsaveComponents: [],
      });
    }
    assert.equal(probeQuirks(host({ exits: { int3: KVM_EXIT_SHUTDOWN } }).system), undefined);
  });

  it("an instruction that the guest does not see is not tried", () => {
    const tried = (leaf1: number, leaf7: number): string[] => {
      const m = host({ leaf1, leaf7 });
      probeQuirks(m.system);
      return m.tried;
    };
    assert.deepEqual(tried(0, 0), ["fwait", "int3"]);
    assert.deepEqual(tried(1 << 26, 0), ["xcr", "xsave", "fwait", "int3"]);
    assert.deepEqual(tried(1 << 13, 0), ["cmpxchg16b", "fwait", "int3"]);
    assert.deepEqual(tried(1 << 23, 0), ["popcnt", "fwait", "int3"]);
    assert.deepEqual(tried(0, LEAF_7), ["smap", "fwait", "int3"]);
    assert.deepEqual(tried(~LEAF_1, ~LEAF_7), ["fwait", "int3"]);
  });

  it("XSAVE is switched on for the guest where it has it", () => {
    const OSXSAVE = 1n << 18n;
    for (const [leaf1, bit] of [
      [LEAF_1, OSXSAVE],
      [LEAF_1 & ~(1 << 26), 0n],
    ] as const) {
      const m = host({ leaf1 });
      probeQuirks(m.system);
      // First without, for CPUID; then for SYSCALL, and for the candidates.
      assert.deepEqual(m.cr4, [0x20n, 0x20n | bit, 0x20n | bit]);
    }
  });

  it("SYSCALL that reports level 3 stays in user mode; one that reports the kernel's, or nothing, does not", () => {
    const stays = (cs: number): boolean | undefined => probeQuirks(host({ cs }).system)?.syscallStaysInUserMode;
    assert.equal(stays(0x33), true);
    assert.deepEqual([0x10, 0x31, 0x32, -1].map(stays), [undefined, undefined, undefined, undefined]);
  });

  it("state components are those of user state from 2 on that have a size", () => {
    const leaf = (index: number, eax: number, ebx: number, ecx = 0, fn = 0xd): Record<string, number> => ({
      ...{ function: fn, index, flags: 1, edx: 0 },
      ...{ eax, ebx, ecx },
    });
    const cpuid = [
      leaf(0, 0xe7, 2696),
      leaf(1, 15, 2568),
      leaf(2, 256, 576),
      leaf(3, 0, 0),
      leaf(8, 128, 0, 1),
      leaf(9, 8, 2688, 2),
      leaf(2, 256, 576, 0, 0xe),
    ];
    assert.deepEqual(probeQuirks(host({ cs: 3, cpuid }).system)?.xsaveComponents, [
      { index: 2, offset: 576, size: 256 },
      { index: 9, offset: 2688, size: 8 },
    ]);
  });
});
