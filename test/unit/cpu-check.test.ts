// Needs: nothing. A saved guest that was shown one processor, and hosts that have another.
import assert from "node:assert/strict";
import { SnapshotError } from "../../vmm/errors.js";
import type { VcpuState } from "../../vmm/kvm/vcpu-state.js";
import type { HostCpu } from "../../vmm/machine/host-cpu.js";
import { checkCpu, cpuProblems, type SavedCpus, type ThisHost } from "../../vmm/snapshot/cpu-check.js";
import { guestCpuid, type CpuidEntry } from "../../vmm/x86/cpuid.js";
import { FEATURE_REGISTERS, namesOf, processorModel } from "../../vmm/x86/cpu-features.js";
import { RECORDED } from "../helpers/recorded-cpus.js";

const { cascadeLake, broadwell, milan } = RECORDED;
const XSTATE_BV = 512;

function vcpu(host: HostCpu, index = 0, count = 1, changes: Partial<VcpuState> = {}): VcpuState {
  const empty = (): DataView<ArrayBuffer> => new DataView(new ArrayBuffer(4096));
  const options = { index, count, nested: false, tscDeadline: true, hypercalls: true };
  return {
    ...{ cpuid: guestCpuid(host.supported, options), tscKhz: 2_500_000, mpState: 0, msrs: [], xcrs: [[0, 7n]] },
    ...{ regs: empty(), sregs: empty(), debugregs: empty(), xsave: empty(), lapic: empty(), events: empty() },
    ...changes,
  };
}

function saved(host: HostCpu, changes: Partial<VcpuState> = {}, cpus = 1): SavedCpus {
  const vcpus = Array.from({ length: cpus }, (_, index) => vcpu(host, index, cpus, changes));
  const processor = processorModel(host.supported);
  return { vcpus, host: { cpu: "a processor", kernel: "6.1", boot: "there", software: false, processor, native: [] } };
}

function here(cpu: HostCpu, others: Partial<ThisHost> = {}): ThisHost {
  return { cpu, software: false, native: () => [], boot: () => "here", ...others };
}

function withBit(cpuid: readonly CpuidEntry[], leaf: number, register: "ebx" | "ecx", bit: number): CpuidEntry[] {
  return cpuid.map((entry) =>
    entry.function === leaf ? { ...entry, [register]: (entry[register] | (1 << bit)) >>> 0 } : entry,
  );
}

describe("cpu-check", () => {
  it("a guest goes on on the host that it was saved on, with any number of vCPUs", () => {
    for (const host of Object.values(RECORDED)) {
      for (const cpus of [1, 2, 4]) assert.deepEqual(cpuProblems(saved(host, {}, cpus), here(host)), []);
    }
  });

  it("every feature that it was shown and the host lacks is named, in one error", () => {
    const problems = cpuProblems(saved(cascadeLake), here(broadwell));
    assert.equal(problems.length, 1, problems.join());
    for (const name of [
      "avx512f",
      "avx512_vnni",
      "pku",
      "clwb",
      "xsavec",
      "xsaves",
      "avx512-zmm-state",
      "pkru-state",
    ]) {
      assert.match(problems[0] ?? "", new RegExp(`\\b${name}\\b`));
    }
    assert.throws(
      () => {
        checkCpu("saved/state.json", saved(cascadeLake), here(broadwell));
      },
      (error: unknown) =>
        error instanceof SnapshotError &&
        /^saved\/state\.json: the guest cannot go on on this host: .*avx512f/.test(error.message) &&
        /GenuineIntel family 6 model 85\).*--cpu-template/.test(error.cure ?? ""),
    );
    // Another model with more does not matter.
    assert.deepEqual(cpuProblems(saved(broadwell), here({ ...cascadeLake, canScaleTsc: true })), []);
  });

  it("each bit of each register is found, whichever vCPU was shown it, unless it says no feature", () => {
    for (const { leaf, index, register, others, names } of FEATURE_REGISTERS) {
      for (let bit = 0; bit < 32; bit++) {
        const flag = (1 << bit) >>> 0;
        const without = broadwell.supported.filter((entry) => entry.function !== leaf || entry.index !== index);
        const entry = { function: leaf, index, flags: 0, eax: 0, ebx: 0, ecx: 0, edx: 0 };
        const host = { ...broadwell, supported: [...without, entry] };
        const own = guestCpuid(host.supported, {
          ...{ index: 0, count: 2, nested: true, tscDeadline: true, hypercalls: true },
        });
        const offered = own.find((each) => each.function === leaf && each.index === index)?.[register] ?? 0;
        const guest = saved(host, {}, 2);
        const [first, second] = guest.vcpus;
        assert.ok(first !== undefined && second !== undefined);
        const shown = [...first.cpuid, { ...entry, [register]: flag }];
        const where = `${leaf.toString(16)} ${String(index)} ${register} ${String(bit)}`;
        const problems = cpuProblems({ ...guest, vcpus: [second, { ...first, cpuid: shown }] }, here(host));
        const lacks = problems.filter((problem) => problem.includes("lacks"));
        const isFree = ((offered | others) & flag) !== 0;
        assert.equal(lacks.length, isFree ? 0 : 1, `${where}: ${problems.join()}`);
        const name = namesOf(names)[bit] ?? "-";
        if (isFree) continue;
        assert.ok(lacks[0]?.endsWith(name === "-" ? `.${register}[${String(bit)}]` : ` ${name}`), where);
      }
    }
  });

  it("another vendor, hardware against software, and wider physical addresses are refused", () => {
    assert.match(cpuProblems(saved(milan), here(cascadeLake)).join(), /AuthenticAMD, and this host's GenuineIntel/);
    assert.match(cpuProblems(saved(milan), here(milan, { software: true })).join(), /this host's KVM has none/);
    const software = saved(milan);
    const from = { ...software, host: { ...software.host, software: true } };
    assert.match(cpuProblems(from, here(milan)).join(), /booted on a KVM without hardware virtualization/);
    const narrow = {
      ...milan,
      supported: milan.supported.map((entry) => (entry.function === 0x8000_0008 ? { ...entry, eax: 0x302b } : entry)),
    };
    assert.deepEqual(cpuProblems(saved(milan), here(narrow)), [
      "it has physical addresses of 48 bits, and this host of 43",
    ]);
    assert.deepEqual(cpuProblems(saved(narrow), here(milan)), []);
  });

  it("on a software KVM, what the processor itself has counts: guests see it", () => {
    const plain = saved(milan);
    const native = withBit(milan.supported, 7, "ebx", 16);
    const vcpus = plain.vcpus.map((each) => ({
      ...each,
      cpuid: guestCpuid(milan.supported, {
        ...{ index: 0, count: 1, nested: false, tscDeadline: true, hypercalls: false },
      }),
    }));
    const guest = { vcpus, host: { ...plain.host, software: true, native } };
    const on = (seen: readonly CpuidEntry[]) => here(milan, { software: true, native: () => seen });
    assert.deepEqual(cpuProblems(guest, on(native)), []);
    assert.deepEqual(cpuProblems(guest, on(milan.supported)), ["this host's processor or KVM lacks avx512f"]);
    // Within one boot, a host has one processor.
    const same = { ...guest, host: { ...guest.host, boot: "here" } };
    assert.deepEqual(cpuProblems(same, on(milan.supported)), []);
    // Hypercalls of a guest from hardware would never come back.
    const hypercalls = { ...guest, vcpus: plain.vcpus };
    assert.match(cpuProblems(hypercalls, on(native)).join(), /kvm-pv-unhalt.*kvm-pv-ipi/);
  });

  it("MSRs that the host does not know are refused unless they are 0, and promises of IA32_ARCH_CAPABILITIES", () => {
    const msrs = [
      [0x10, 5n],
      [0xd90, 0n],
      [0xda0, 0x100n],
      [0x122, 1n],
      [0x10a, 0x0c0a_e06bn],
    ] as const;
    assert.deepEqual(cpuProblems(saved(cascadeLake, { msrs }), here(cascadeLake)), [
      "this host's KVM does not know the MSRs 0x122, 0xda0, which it uses",
    ]);
    const weak = { ...cascadeLake, archCapabilities: 0x0c0a_e06an & ~(1n << 5n) };
    assert.deepEqual(cpuProblems(saved(cascadeLake, { msrs: [[0x10a, 0x0c0a_e06bn]] }), here(weak)), [
      "IA32_ARCH_CAPABILITIES promised it rdcl_no, mds_no, which this host does not have",
    ]);
    // RRSBA says what is lacking, and a guest that cannot see the MSR was promised nothing.
    assert.deepEqual(cpuProblems(saved(cascadeLake, { msrs: [[0x10a, 1n << 19n]] }), here(broadwell)).length, 1);
    assert.deepEqual(cpuProblems(saved(broadwell, { msrs: [[0x10a, 1n]] }), here(cascadeLake)), []);
  });

  it("XCR0 and what XSAVE has kept must be this host's, and the guest's own CPUID's", () => {
    const kept = (bits: bigint): DataView<ArrayBuffer> => {
      const xsave = new DataView(new ArrayBuffer(8192));
      xsave.setBigUint64(XSTATE_BV, bits, true);
      return xsave;
    };
    const from = (xcr0: bigint, bits: bigint): Partial<VcpuState> => ({ xcrs: [[0, xcr0]], xsave: kept(bits) });
    assert.deepEqual(cpuProblems(saved(cascadeLake, from(0x2e7n, 0x2e7n)), here(cascadeLake)), []);
    assert.match(
      cpuProblems(saved(milan, from(0x6_0007n, 0x6_0003n)), here(milan)).join(),
      /kept amx-tilecfg-state, amx-tiledata-state, .* \(it needs 8192 bytes, and this host 4096\)/,
    );
    assert.match(
      cpuProblems(saved(broadwell, from(7n, 0xe7n)), here(cascadeLake)).join(),
      /kept avx512-opmask-state, .*, which its own CPUID does not have/,
    );
    assert.deepEqual(cpuProblems(saved(broadwell, { xcrs: [], xsave: kept(3n) }), here(cascadeLake)), []);
  });

  it("a time-stamp counter that cannot be scaled must run at the same rate, within KVM's tolerance", () => {
    const at = (tscKhz: number, canScaleTsc: boolean, hostKhz: number): number =>
      cpuProblems(saved(broadwell, { tscKhz }), here({ ...broadwell, canScaleTsc }, { tscKhz: hostKhz })).length;
    assert.deepEqual(
      [at(2_500_000, false, 2_500_625), at(2_500_000, false, 2_500_626), at(2_500_626, false, 2_500_000)],
      [0, 1, 1],
    );
    assert.deepEqual([at(2_500_000, true, 1_000_000), at(0, false, 5), at(5, false, 0)], [0, 0, 0]);
  });
});
