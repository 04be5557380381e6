// Needs: nothing.
import assert from "node:assert/strict";
import { guestCpuid, type CpuidEntry } from "../../vmm/x86/cpuid.js";
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
  const entries = guestCpuid(SUPPORTED, { index, count, nested, tscDeadline: true });
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
      bootMsrs(guestCpuid(SUPPORTED, { index: 0, count: 1, nested, tscDeadline: true }))
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
});
