// Needs: nothing.
import assert from "node:assert/strict";
import {
  coreIdBits,
  guestCpuid,
  hasVmx,
  offersVirtualization,
  physicalAddressBits,
  type CpuidEntry,
} from "../../vmm/x86/cpuid.js";
import { bootMsrs } from "../../vmm/x86/msrs.js";

const leaf = (fn: number, values: Partial<CpuidEntry> = {}): CpuidEntry => ({
  function: fn,
  index: 0,
  flags: 0,
  eax: 0,
  ebx: 0,
  ecx: 0,
  edx: 0,
  ...values,
});

const SUPPORTED = [
  leaf(0, { eax: 0x1f }),
  leaf(1, { ebx: 0x1108_0812, ecx: 0xffff_ffff & ~(1 << 31), edx: 0xffff_ffff }),
  leaf(0xa, { eax: 0x0730_0402 }),
  leaf(0xb, { edx: 77 }),
  leaf(0x4000_0000, { eax: 0x4000_0001, ebx: 0x4b4d564b }),
  leaf(0x8000_0001, { ecx: 0xffff_ffff }),
  leaf(0x8000_0008, { eax: 0x3030, ecx: 0x7fff }),
  leaf(0x8000_000a, { eax: 1 }),
];

function guest(index: number, count: number, nested = false): (fn: number, sub?: number) => CpuidEntry | undefined {
  const entries = guestCpuid(SUPPORTED, { index, count, nested, tscDeadline: true, hypercalls: true });
  return (fn, sub = 0) => entries.find((entry) => entry.function === fn && entry.index === sub);
}

describe("cpuid", () => {
  it("shows the hypervisor bit, the vCPU's APIC id and how many there are", () => {
    const one = guest(2, 4)(1);
    assert.equal((one?.ecx ?? 0) >>> 31, 1);
    assert.equal((one?.ebx ?? 0) >>> 24, 2);
    assert.equal(((one?.ebx ?? 0) >>> 16) & 0xff, 4);
    assert.equal((one?.ebx ?? 0) & 0xff00, 0x0800, "the cache line size is the host's");
    assert.notEqual((one?.edx ?? 0) & (1 << 28), 0, "HTT");
    assert.equal((guest(0, 1)(1)?.edx ?? 0) & (1 << 28), 0, "no HTT with one vCPU");
  });

  it("hides vmx and svm unless nested is asked for", () => {
    assert.equal((guest(0, 1)(1)?.ecx ?? 0) & (1 << 5), 0);
    assert.equal((guest(0, 1)(0x8000_0001)?.ecx ?? 0) & (1 << 2), 0);
    assert.equal(guest(0, 1)(0x8000_000a), undefined);
    assert.notEqual((guest(0, 1, true)(1)?.ecx ?? 0) & (1 << 5), 0);
    assert.notEqual((guest(0, 1, true)(0x8000_0001)?.ecx ?? 0) & (1 << 2), 0);
    assert.notEqual(guest(0, 1, true)(0x8000_000a), undefined);
  });

  it("a guest that sees vmx finds it allowed and locked in IA32_FEATURE_CONTROL, as firmware leaves it; others have no such MSR", () => {
    const control = (nested: boolean): readonly bigint[] =>
      bootMsrs(guestCpuid(SUPPORTED, { index: 0, count: 1, nested, tscDeadline: true, hypercalls: true }))
        .filter(([index]) => index === 0x3a)
        .map(([, value]) => value);
    assert.deepEqual([control(true), control(false)], [[5n], []]);
    assert.deepEqual(
      bootMsrs([leaf(0x8000_0001, { ecx: 1 << 2 })]).map(([index]) => index),
      bootMsrs([]).map(([index]) => index),
      "AMD-V needs none",
    );
  });

  it("the topology leaf has a thread level, a core level and an end", () => {
    const get = guest(3, 6);
    assert.deepEqual(
      [0, 1, 2].map((sub) => {
        const entry = get(0xb, sub);
        return [entry?.eax, entry?.ebx, entry?.ecx, entry?.edx];
      }),
      [
        [0, 1, 0x100, 3],
        [3, 6, 0x201, 3],
        [0, 0, 2, 3],
      ],
    );
  });

  it("counts cores the AMD way too, offers no performance counters, keeps KVM's leaves", () => {
    const get = guest(0, 3);
    assert.equal((get(0x8000_0008)?.ecx ?? 0) & 0xff, 2);
    assert.equal(((get(0x8000_0008)?.ecx ?? 0) >> 12) & 0xf, 2);
    assert.equal(get(0xa)?.eax, 0);
    assert.equal(get(0x4000_0000)?.ebx, 0x4b4d564b);
  });

  it("where hypercalls never come back, none is offered: waking, interrupting and yielding to another vCPU", () => {
    const supported = [leaf(0x4000_0001, { eax: 0xffff_ffff, edx: 7 })];
    const features = (hypercalls: boolean): CpuidEntry | undefined =>
      guestCpuid(supported, { index: 0, count: 2, nested: false, tscDeadline: true, hypercalls })[0];
    assert.deepEqual(features(true), supported[0]);
    assert.deepEqual(features(false), { ...leaf(0x4000_0001), eax: 0xfffe_d77f, edx: 7 });
  });

  it("leaf 1 changes what is vmlet's to say, and no other bit", () => {
    const { ebx = 0, ecx = 0, edx = 0 } = guest(5, 6)(1) ?? {};
    // APIC id 5 of 8, the host's cache line and brand.
    assert.equal(ebx, 0x0508_0812);
    // No MONITOR (3), no VMX (5); the hypervisor's bit (31) is added.
    assert.equal(ecx, (0xffff_ffff & ~(1 << 3) & ~(1 << 5)) >>> 0);
    assert.equal(edx, 0xffff_ffff);
    const none = guestCpuid([leaf(1)], { index: 0, count: 1, nested: false, tscDeadline: false, hypercalls: true })[0];
    assert.equal(none?.ecx, ((1 << 31) | (1 << 21)) >>> 0, "hypervisor and x2APIC");
    const timer = guestCpuid([leaf(1)], { index: 0, count: 1, nested: false, tscDeadline: true, hypercalls: true })[0];
    assert.equal(timer?.ecx, ((1 << 31) | (1 << 21) | (1 << 24)) >>> 0);
    assert.equal(
      guestCpuid([leaf(1)], { index: 0, count: 2, nested: false, tscDeadline: true, hypercalls: true })[0]?.edx,
      1 << 28,
    );
    const nested = guest(0, 1, true)(1);
    assert.equal(nested?.ecx, (0xffff_ffff & ~(1 << 3)) >>> 0);
  });

  it("AMD's feature leaf: legacy multi-core with several vCPUs, no topology leaf with one", () => {
    const ecx = (count: number, nested = false, given = 0xffff_ffff): number =>
      guestCpuid([leaf(0x8000_0001, { ecx: given })], {
        index: 0,
        count,
        nested,
        tscDeadline: true,
        hypercalls: true,
      })[0]?.ecx ?? 0;
    assert.equal(ecx(2), (0xffff_ffff & ~(1 << 2)) >>> 0);
    assert.equal(ecx(1), (0xffff_ffff & ~(1 << 1) & ~(1 << 2) & ~(1 << 22)) >>> 0);
    assert.equal(ecx(2, true), 0xffff_ffff);
    assert.equal(ecx(2, false, 0), 1 << 1);
    assert.equal(ecx(1, false, 0), 0);
  });

  it("caches: the last level is shared by all, the others by nobody; leaf 4 counts cores", () => {
    const cache = (fn: number, level: number, count: number, high = 0xffff_c000): number => {
      const eax = (high | (level << 5) | 0x101) >>> 0;
      return (
        guestCpuid([leaf(fn, { eax })], { index: 0, count, nested: false, tscDeadline: true, hypercalls: true })[0]
          ?.eax ?? -1
      );
    };
    // Kept: type, level, bit 8. Bits 14 to 25: sharing, less one. Bits 26 to 31: cores of the socket, less one.
    for (const count of [1, 2, 3, 4, 6, 32]) {
      const ids = 2 ** Math.ceil(Math.log2(count)) - 1;
      for (const level of [1, 2]) {
        assert.equal(cache(4, level, count), ((ids << 26) | (level << 5) | 0x101) >>> 0);
        assert.equal(cache(0x8000_001d, level, count), (level << 5) | 0x101);
      }
      for (const level of [3, 4]) {
        assert.equal(cache(4, level, count), ((ids << 26) | (ids << 14) | (level << 5) | 0x101) >>> 0);
        assert.equal(cache(0x8000_001d, level, count), ((ids << 14) | (level << 5) | 0x101) >>> 0);
      }
    }
    // No cache: the end of the list.
    assert.equal(
      guestCpuid([leaf(4, { eax: 0xffff_c060 })], {
        index: 0,
        count: 4,
        nested: false,
        tscDeadline: true,
        hypercalls: true,
      })[0]?.eax,
      0xffff_c060,
    );
  });

  it("AMD's core count and ids; the hypervisor's last leaf", () => {
    const sizes = guest(0, 32)(0x8000_0008);
    assert.deepEqual([sizes?.eax, sizes?.ecx], [0x3030, 0x5f1f]);
    assert.equal(guest(0, 1)(0x8000_0008)?.ecx, 0x0f00);
    const get = (entry: CpuidEntry): CpuidEntry | undefined =>
      guestCpuid([entry], { index: 9, count: 12, nested: false, tscDeadline: true, hypercalls: true })[0];
    const ids = get(leaf(0x8000_001e, { eax: 1, ebx: 0xffff_ffff, ecx: 7, edx: 7 }));
    assert.deepEqual([ids?.eax, ids?.ebx, ids?.ecx, ids?.edx], [9, 9, 0, 0]);
    assert.equal(get(leaf(0x4000_0000, { eax: 0 }))?.eax, 0x4000_0001);
    assert.equal(get(leaf(0x4000_0000, { eax: 0x4000_0005 }))?.eax, 0x4000_0005);
    const other = leaf(0x7, { eax: 1, ebx: 2, ecx: 3, edx: 4 });
    assert.deepEqual(get(other), other);
  });

  it("the topology leaf replaces the host's, where there can be one", () => {
    const options = { index: 1, count: 5, nested: false, tscDeadline: true, hypercalls: true };
    const leaves = (highest: number): number[] =>
      guestCpuid([leaf(0, { eax: highest }), leaf(0xb), leaf(0x1f), leaf(2)], options).map((entry) => entry.function);
    assert.deepEqual(leaves(0xa), [0, 2]);
    assert.deepEqual(leaves(0xb), [0, 2, 0xb, 0xb, 0xb]);
    assert.deepEqual([1, 2, 3, 4, 5, 8, 9, 32].map(coreIdBits), [0, 1, 2, 2, 3, 3, 4, 5]);
    const flags = guestCpuid([leaf(0, { eax: 0xb })], options).map((entry) => entry.flags);
    assert.deepEqual(flags, [0, 1, 1, 1]);
  });

  it("says what the host can do: virtualization in a guest, bits of an address", () => {
    assert.deepEqual(
      [[leaf(1, { ecx: 1 << 5 })], [leaf(0x8000_0001, { ecx: 1 << 2 })], [leaf(1, { ecx: 1 << 2 })], []].map(
        offersVirtualization,
      ),
      [true, true, false, false],
    );
    assert.deepEqual([hasVmx([leaf(1, { ecx: 1 << 5 })]), hasVmx([leaf(7, { ecx: 1 << 5 })])], [true, false]);
    assert.deepEqual([physicalAddressBits(SUPPORTED), physicalAddressBits([])], [0x30, 36]);
  });

  it("two threads a core: who shares a core and its caches, in every leaf that says so", () => {
    const supported = [
      leaf(0, { eax: 0xb }),
      ...SUPPORTED.slice(1),
      leaf(4, { index: 1, eax: 0xffff_c021 }),
      leaf(4, { index: 3, eax: 0xffff_c063 }),
      leaf(0x8000_001e, { eax: 9, ebx: 9, ecx: 9 }),
    ];
    const of = (index: number, count: number, threadsPerCore: 1 | 2): ((fn: number, sub?: number) => CpuidEntry) => {
      const entries = guestCpuid(supported, {
        index,
        count,
        threadsPerCore,
        nested: false,
        tscDeadline: true,
        hypercalls: true,
      });
      return (fn, sub = 0) => {
        const entry = entries.find((one) => one.function === fn && one.index === sub);
        assert.ok(entry !== undefined);
        return entry;
      };
    };
    const smt = of(5, 8, 2);
    assert.deepEqual(
      [smt(0xb, 0).eax, smt(0xb, 0).ebx, smt(0xb, 1).eax, smt(0xb, 1).ebx, smt(0xb, 1).edx],
      [1, 2, 3, 8, 5],
    );
    // Threads that share the cache, less one; cores of the socket, less one.
    const shares = (entry: CpuidEntry): [number, number] => [(entry.eax >>> 14) & 0xfff, entry.eax >>> 26];
    assert.deepEqual(
      [shares(smt(4, 1)), shares(smt(4, 3))],
      [
        [1, 3],
        [7, 3],
      ],
    );
    assert.deepEqual([smt(0x8000_001e).eax, smt(0x8000_001e).ebx, smt(0x8000_001e).ecx], [5, 0x0102, 0]);
    assert.equal((smt(1).ebx >>> 16) & 0xff, 8);
    const cores = of(5, 8, 1);
    assert.deepEqual(
      [cores(0xb, 0).eax, cores(0xb, 0).ebx, shares(cores(4, 1)), cores(0x8000_001e).ebx],
      [0, 1, [0, 7], 5],
    );
    const single = of(0, 1, 2);
    assert.deepEqual([single(0xb, 0).eax, single(0xb, 0).ebx, single(0x8000_001e).ebx], [0, 1, 0]);
  });
});
