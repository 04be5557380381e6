// Needs: nothing. Each instruction that is done by hand, against what the processor's manual says of it;
// test/kvm/fixups.test.ts compares them with processors.
import assert from "node:assert/strict";
import { clearCpuid, softwareKvmCmdline } from "../../../vmm/config/software-kvm.js";
import { KvmIoctlError } from "../../../vmm/errors.js";
import { cmpxchg16b } from "../../../vmm/fixups/cmpxchg16b.js";
import type { InstructionFixup } from "../../../vmm/fixups/fixup.js";
import { fwait } from "../../../vmm/fixups/fwait.js";
import { GuestFault } from "../../../vmm/fixups/guest-fault.js";
import { decode } from "../../../vmm/fixups/instruction.js";
import { int3 } from "../../../vmm/fixups/int3.js";
import { popcnt } from "../../../vmm/fixups/popcnt.js";
import { smap } from "../../../vmm/fixups/smap.js";
import { nameUnemulated } from "../../../vmm/fixups/unemulated.js";
import { xcr } from "../../../vmm/fixups/xcr.js";
import { xsave } from "../../../vmm/fixups/xsave.js";
import { UNMAPPED, fixupRig, type FixupRig } from "../../helpers/fixup-rig.js";

const RIP = 0x7000n;
const ALL = 2n ** 64n - 1n;
const ZF = 1n << 6n;
const OSXSAVE = 1n << 18n;

function matches(unit: InstructionFixup, ...bytes: number[]): boolean {
  const instruction = decode(Uint8Array.from(bytes));
  assert.ok(instruction !== undefined);
  return unit.matches(instruction);
}

/** Runs it; the fault as "#13 0", or "ok", with RIP behind the instruction in that case alone. */
function apply(m: FixupRig, unit: InstructionFixup, ...bytes: number[]): string {
  const instruction = decode(Uint8Array.from(bytes));
  assert.ok(instruction !== undefined && unit.matches(instruction));
  m.set("rip", RIP);
  try {
    unit.apply(instruction, m);
  } catch (error) {
    assert.ok(error instanceof GuestFault, String(error));
    if (unit !== int3) assert.equal(m.get("rip"), RIP);
    return `#${String(error.vector)} ${String(error.errorCode)}`;
  }
  assert.equal(m.get("rip"), RIP + BigInt(bytes.length));
  return "ok";
}

describe("instructions done by hand", () => {
  it("int3 traps behind itself", () => {
    const m = fixupRig();
    assert.ok(matches(int3, 0xcc) && !matches(int3, 0x9b));
    assert.equal(apply(m, int3, 0xcc), "#3 undefined");
    assert.equal(m.get("rip"), RIP + 1n);
  });

  it("stac and clac change AC and nothing else, in the kernel only, without LOCK", () => {
    const m = fixupRig();
    assert.ok(matches(smap, 0x0f, 0x01, 0xcb) && matches(smap, 0x0f, 0x01, 0xca));
    assert.ok(!matches(smap, 0x0f, 0x01, 0xd0) && !matches(smap, 0x0f, 0xae, 0xca));
    m.set("rflags", 0x246n);
    assert.equal(apply(m, smap, 0x0f, 0x01, 0xcb), "ok");
    assert.equal(m.get("rflags"), 0x4_0246n);
    assert.equal(apply(m, smap, 0x0f, 0x01, 0xca), "ok");
    assert.equal(m.get("rflags"), 0x246n);
    assert.equal(apply(m, smap, 0xf0, 0x0f, 0x01, 0xcb), "#6 undefined");
    m.setSegment("ss", "dpl", 3n);
    assert.equal(apply(m, smap, 0x0f, 0x01, 0xcb), "#6 undefined");
    assert.equal(m.get("rflags"), 0x246n);
  });

  it("popcnt: three widths, registers and memory, flags", () => {
    const m = fixupRig();
    assert.ok(matches(popcnt, 0xf3, 0x0f, 0xb8, 0xc8));
    assert.ok(!matches(popcnt, 0x0f, 0xb8, 0xc8) && !matches(popcnt, 0xf3, 0x0f, 0xae, 0xc8));
    m.set("rax", 0xf0f0_f0f0_0000_8001n);
    m.set("rcx", ALL);
    m.set("rflags", 0xfffn & ~ZF);
    assert.equal(apply(m, popcnt, 0xf3, 0x48, 0x0f, 0xb8, 0xc8), "ok");
    // All arithmetic flags go; the others (0x72a) stay.
    assert.deepEqual([m.get("rcx"), m.get("rflags")], [18n, 0x72an]);
    m.set("rcx", ALL);
    assert.equal(apply(m, popcnt, 0xf3, 0x0f, 0xb8, 0xc8), "ok");
    assert.equal(m.get("rcx"), 2n);
    m.set("rcx", ALL);
    assert.equal(apply(m, popcnt, 0x66, 0xf3, 0x0f, 0xb8, 0xc8), "ok");
    assert.equal(m.get("rcx"), ALL - 0xffffn + 2n);
    m.set("rax", 0xffff_0000n << 32n);
    m.set("rflags", 0n);
    assert.equal(apply(m, popcnt, 0xf3, 0x0f, 0xb8, 0xc8), "ok");
    assert.deepEqual([m.get("rcx"), m.get("rflags")], [0n, ZF]);
    // 64 bits win over the operand size.
    assert.equal(apply(m, popcnt, 0x66, 0xf3, 0x48, 0x0f, 0xb8, 0xc8), "ok");
    assert.deepEqual([m.get("rcx"), m.get("rflags")], [16n, 0n]);
    m.set("rsi", 0x5000n);
    m.memory.writeU64(0x5000, ALL);
    for (const [prefix, bits] of [
      [[0x66, 0xf3], 16n],
      [[0xf3], 32n],
      [[0xf3, 0x48], 64n],
    ] as const) {
      m.set("rcx", 0n);
      assert.equal(apply(m, popcnt, ...prefix, 0x0f, 0xb8, 0x0e), "ok");
      assert.equal(m.get("rcx"), bits);
    }
    // Only as many bytes as it counts are read.
    m.set("rsi", BigInt(UNMAPPED - 4));
    assert.equal(apply(m, popcnt, 0xf3, 0x0f, 0xb8, 0x0e), "ok");
    assert.equal(apply(m, popcnt, 0xf3, 0x48, 0x0f, 0xb8, 0x0e), "#14 0");
  });

  it("cmpxchg16b: both halves are compared, both exchanged or both loaded", () => {
    const words = new Int32Array(new SharedArrayBuffer(8));
    const unit = cmpxchg16b(words, 1);
    const code = [0xf0, 0x48, 0x0f, 0xc7, 0x0e];
    assert.ok(matches(unit, ...code) && matches(unit, 0x48, 0x0f, 0xc7, 0x0e));
    assert.ok(!matches(unit, 0x0f, 0xc7, 0x0e), "cmpxchg8b");
    assert.ok(!matches(unit, 0x48, 0x0f, 0xc7, 0x36), "another of the group");
    assert.ok(!matches(unit, 0x48, 0x0f, 0xae, 0x0e));
    const m = fixupRig();
    const start = (low: bigint, high: bigint): void => {
      m.set("rsi", 0x5010n);
      m.set("rax", low);
      m.set("rdx", high);
      m.set("rbx", 3n);
      m.set("rcx", 4n);
      m.set("rflags", 0x202n);
      m.memory.writeU64(0x5010, 1n);
      m.memory.writeU64(0x5018, 2n);
    };
    const state = (): bigint[] => [
      m.memory.readU64(0x5010),
      m.memory.readU64(0x5018),
      ...(["rax", "rdx", "rbx", "rcx", "rflags"] as const).map((name) => m.get(name)),
    ];
    start(1n, 2n);
    assert.equal(apply(m, unit, ...code), "ok");
    assert.deepEqual(state(), [3n, 4n, 1n, 2n, 3n, 4n, 0x202n | ZF]);
    for (const [low, high] of [
      [1n, 9n],
      [9n, 2n],
      [9n, 9n],
    ] as const) {
      start(low, high);
      m.set("rflags", 0x202n | ZF);
      assert.equal(apply(m, unit, ...code), "ok");
      assert.deepEqual(state(), [1n, 2n, 1n, 2n, 3n, 4n, 0x202n]);
    }
    start(1n, 2n);
    m.set("rsi", 0x5018n);
    assert.equal(apply(m, unit, ...code), "#13 0");
    m.set("rsi", BigInt(UNMAPPED));
    assert.equal(apply(m, unit, ...code), "#14 2");
    assert.equal(apply(m, unit, 0x48, 0x0f, 0xc7, 0xc9), "#6 undefined");
    // A page that may not be written is a fault also where nothing would be exchanged.
    m.setPage(0x5000, 0x5001n);
    start(9n, 9n);
    assert.equal(apply(m, unit, ...code), "#14 3");
    assert.deepEqual([words[0], words[1]], [0, 0]);
  });

  it("fwait raises what is pending, #NM with MP and TS, and goes on otherwise", () => {
    const m = fixupRig();
    assert.ok(matches(fwait, 0x9b) && !matches(fwait, 0xcc));
    assert.equal(apply(m, fwait, 0x9b), "ok");
    m.xsave.setUint16(2, 0xff7f, true);
    assert.equal(apply(m, fwait, 0x9b), "ok");
    m.xsave.setUint16(2, 0x80, true);
    assert.equal(apply(m, fwait, 0x9b), "#16 undefined");
    for (const [cr0, result] of [
      [1n << 1n, "#16 undefined"],
      [1n << 3n, "#16 undefined"],
      [(1n << 1n) | (1n << 3n), "#7 undefined"],
    ] as const) {
      m.setControl("cr0", cr0);
      assert.equal(apply(m, fwait, 0x9b), result);
    }
  });

  it("xgetbv and xsetbv: XCR0 in two halves, XINUSE, and what is refused", () => {
    const get = [0x0f, 0x01, 0xd0];
    const set = [0x0f, 0x01, 0xd1];
    const m = fixupRig();
    assert.ok(matches(xcr, ...get) && matches(xcr, ...set) && !matches(xcr, 0x0f, 0x01, 0xcb));
    assert.ok(!matches(xcr, 0x0f, 0xae, 0xd0));
    assert.equal(apply(m, xcr, ...get), "#6 undefined");
    m.setControl("cr4", OSXSAVE);
    assert.equal(apply(m, xcr, 0xf0, ...get), "#6 undefined");
    m.xcr0 = 0x1_0000_00e7n;
    m.set("rcx", 0xffff_ffff_0000_0000n);
    assert.equal(apply(m, xcr, ...get), "ok");
    assert.deepEqual([m.get("rax"), m.get("rdx")], [0xe7n, 1n]);
    m.set("rcx", 1n);
    m.xsave.setBigUint64(512, 0x1_0000_0013n, true);
    assert.equal(apply(m, xcr, ...get), "ok");
    assert.deepEqual([m.get("rax"), m.get("rdx")], [3n, 1n]);
    m.set("rcx", 2n);
    assert.equal(apply(m, xcr, ...get), "#13 0");
    m.set("rcx", 0n);
    m.set("rax", 0xdead_0000_0007n);
    m.set("rdx", 0xdead_0000_0001n);
    assert.equal(apply(m, xcr, ...set), "ok");
    assert.equal(m.xcr0, 0x1_0000_0007n);
    m.xcr0Allowed = () => false;
    assert.equal(apply(m, xcr, ...set), "#13 0");
    m.xcr0Allowed = () => {
      throw new KvmIoctlError("KVM_SET_XCRS", 5, "EIO");
    };
    assert.throws(() => apply(m, xcr, ...set), /EIO|KVM_SET_XCRS/);
    m.xcr0Allowed = () => true;
    m.set("rcx", 1n);
    assert.equal(apply(m, xcr, ...set), "#13 0");
    m.set("rcx", 0n);
    m.setSegment("ss", "dpl", 3n);
    assert.equal(apply(m, xcr, ...set), "#13 0");
    assert.equal(apply(m, xcr, ...get), "ok");
  });

  it("instructions that nothing here does have a name and a way out", () => {
    const named = (...bytes: number[]): (string | undefined)[] => {
      const { name, cure } = nameUnemulated(Uint8Array.from(bytes));
      return [name, /\(add (\S+) to --cmdline\)/.exec(cure)?.[1]];
    };
    assert.deepEqual(named(0x0f, 0x01, 0xf9), ["RDTSCP", clearCpuid(59)]);
    assert.deepEqual(named(0x0f, 0x01, 0xef), ["WRPKRU", "nopku"]);
    assert.deepEqual(named(0x0f, 0x01, 0xc1), [undefined, undefined]);
    assert.deepEqual(named(0x0f, 0xae, 0x16), ["LDMXCSR or another of group 15", undefined]);
    assert.deepEqual(named(0xc5, 0xf8, 0x77), ["an AVX instruction (VEX)", clearCpuid(156)]);
    assert.deepEqual(named(), [undefined, undefined]);
    assert.match(nameUnemulated(Uint8Array.of(0x90, 0x90)).cure, /^boot where .* --accel lab$/);
    // What a software KVM cannot do is refused with it, and the clock's rate told where it is known.
    assert.equal(clearCpuid(), "clearcpuid=141,151,297,308,320,321,322,323,580");
    assert.equal(softwareKvmCmdline(0), `${clearCpuid()} nofsgsbase rodata=off noreplace-smp`);
    assert.equal(
      softwareKvmCmdline(0, { mayBeSaved: true }),
      `${softwareKvmCmdline(0)} clocksource=kvm-clock no-kvmapf`,
    );
    assert.equal(softwareKvmCmdline(1), `${softwareKvmCmdline(0)} tsc_early_khz=1`);
  });
});

describe("xsave done by hand", () => {
  const AVX = { index: 2, offset: 576, size: 256 };
  const PKRU = { index: 9, offset: 2688, size: 8 };
  const unit = xsave([AVX, PKRU]);
  const SAVE = [0x0f, 0xae, 0x26];
  const RESTORE = [0x0f, 0xae, 0x2e];
  const AREA = 0x6000;
  const HEADER = 512;

  /** Every byte of the state tells where it is. */
  function loaded(): FixupRig {
    const m = fixupRig();
    m.setControl("cr4", OSXSAVE);
    m.xcr0 = 0x207n;
    m.set("rsi", BigInt(AREA));
    m.set("rax", 0xffff_ffffn);
    m.set("rdx", 0xffff_ffffn);
    for (let at = 0; at < 4096; at++) m.xsave.setUint8(at, (at * 7 + (at >> 8) + 1) & 0x7f);
    m.xsave.setUint32(24, 0x1fa0, true);
    m.xsave.setUint32(28, 0xffff, true);
    m.xsave.setBigUint64(HEADER, 0x207n, true);
    m.xsave.setBigUint64(HEADER + 8, 0n, true);
    return m;
  }
  const stateBytes = (m: FixupRig): Uint8Array => new Uint8Array(m.xsave.buffer.slice(0));

  it("knows XSAVE, XSAVEOPT and XRSTOR, to memory and without prefixes of others", () => {
    for (const reg of [4, 5, 6]) assert.ok(matches(unit, 0x0f, 0xae, (reg << 3) | 6));
    for (const reg of [0, 1, 2, 3, 7]) assert.ok(!matches(unit, 0x0f, 0xae, (reg << 3) | 6));
    assert.ok(!matches(unit, 0x0f, 0xae, 0xe8), "lfence");
    for (const prefix of [0x66, 0xf2, 0xf3]) assert.ok(!matches(unit, prefix, ...SAVE));
    assert.ok(!matches(unit, 0x0f, 0xc7, 0x26));
  });

  it("stores what is asked for and on, and leaves the rest of the area alone", () => {
    const cases: [mask: bigint, stored: [number, number][]][] = [
      [
        0x207n,
        [
          [0, 24],
          [24, 32],
          [32, 416],
          [576, 832],
          [2688, 2696],
        ],
      ],
      [
        1n,
        [
          [0, 24],
          [32, 160],
        ],
      ],
      [
        2n,
        [
          [24, 32],
          [160, 416],
        ],
      ],
      [
        4n,
        [
          [24, 32],
          [576, 832],
        ],
      ],
      [0x200n, [[2688, 2696]]],
      [0n, []],
      // What XCR0 has off is not stored.
      [0x8n, []],
    ];
    for (const [mask, stored] of cases) {
      const m = loaded();
      m.set("rax", mask);
      m.set("rdx", 0n);
      m.memory.slice(AREA, 4096).fill(0xee);
      m.memory.writeU64(AREA + HEADER, 0x1f0n);
      const state = stateBytes(m);
      const expected = new Uint8Array(4096).fill(0xee);
      for (const [from, to] of stored) expected.set(state.subarray(from, to), from);
      new DataView(expected.buffer).setBigUint64(HEADER, (mask & 0x207n) | (0x1f0n & ~mask & ~0n), true);
      assert.equal(apply(m, unit, ...SAVE), "ok");
      assert.deepEqual(m.memory.slice(AREA, 4096), expected, `mask ${String(mask)}`);
    }
  });

  it("says that a component is in its initial state instead of marking it", () => {
    const m = loaded();
    m.xsave.setBigUint64(HEADER, 2n, true);
    m.memory.writeU64(AREA + HEADER, 0x205n);
    assert.equal(apply(m, unit, ...SAVE), "ok");
    assert.equal(m.memory.readU64(AREA + HEADER), 2n);
  });

  it("the upper half of the mask counts, and the upper halves of its registers do not", () => {
    const m = loaded();
    m.xcr0 = (1n << 40n) | 1n;
    m.set("rax", ALL - 1n);
    m.set("rdx", 0xffff_ffff_0000_0000n);
    m.memory.slice(AREA, 1024).fill(0xee);
    m.memory.writeU64(AREA + HEADER, 0n);
    assert.equal(apply(m, unit, ...SAVE), "ok");
    assert.equal(m.memory.readU8(AREA), 0xee);
    m.set("rdx", 1n << 8n);
    m.xsave.setBigUint64(HEADER, 1n << 40n, true);
    assert.equal(apply(m, unit, ...SAVE), "ok");
    assert.equal(m.memory.readU64(AREA + HEADER), 1n << 40n);
  });

  it("touches no byte behind the last component that it stores", () => {
    const m = loaded();
    const last = (length: number): bigint => BigInt(UNMAPPED) - BigInt(length);
    for (const [mask, length] of [
      [3n, 576],
      [7n, 832],
    ] as const) {
      m.set("rax", mask);
      m.set("rdx", 0n);
      m.set("rsi", last(length));
      for (const code of [SAVE, RESTORE]) {
        m.memory.slice(UNMAPPED - length + HEADER, 64).fill(0);
        m.memory.writeU32(UNMAPPED - length + 24, 0x1f80);
        assert.equal(apply(m, unit, ...code), "ok", String(length));
      }
    }
    m.set("rax", 0x207n);
    m.set("rsi", last(2688));
    assert.equal(apply(m, unit, ...SAVE), "#14 2");
    assert.equal(apply(m, unit, ...RESTORE), "#14 0");
  });

  it("restores what is asked for and there; the rest of what is asked for gets its initial state", () => {
    const cases: [mask: bigint, present: bigint, restored: [number, number][], inUse: bigint][] = [
      [
        0x207n,
        0x207n,
        [
          [0, 24],
          [24, 28],
          [32, 416],
          [576, 832],
          [2688, 2696],
        ],
        0x207n,
      ],
      [
        0x207n,
        4n,
        [
          [24, 28],
          [160, 416],
          [576, 832],
        ],
        6n,
      ],
      [
        1n,
        0x207n,
        [
          [0, 24],
          [32, 160],
        ],
        0x207n,
      ],
      [
        4n,
        4n,
        [
          [24, 28],
          [576, 832],
        ],
        0x207n,
      ],
      [0x201n, 0n, [], 6n],
      [0x200n, 0x200n, [[2688, 2696]], 0x207n],
    ];
    for (const [mask, present, restored, inUse] of cases) {
      const m = loaded();
      m.set("rax", mask);
      m.set("rdx", 0n);
      const area = m.memory.slice(AREA, 4096);
      for (let at = 0; at < 4096; at++) area[at] = (at * 5 + 3) & 0x7f;
      m.memory.writeU32(AREA + 24, 0x1f90);
      area.fill(0, HEADER, HEADER + 64);
      m.memory.writeU64(AREA + HEADER, present);
      const expected = stateBytes(m);
      for (const [from, to] of restored) expected.set(area.subarray(from, to), from);
      // MXCSR comes along with SSE state, whose registers are initial unless the area has them.
      if ((mask & 6n) !== 0n && (present & mask & 2n) === 0n && (mask & 2n) !== 0n) expected.fill(0, 160, 416);
      const view = new DataView(expected.buffer);
      view.setBigUint64(HEADER, inUse, true);
      view.setBigUint64(HEADER + 8, 0n, true);
      assert.equal(apply(m, unit, ...RESTORE), "ok");
      assert.deepEqual(stateBytes(m), expected, `mask ${String(mask)}, present ${String(present)}`);
    }
  });

  it("an MXCSR like the initial one needs no SSE state", () => {
    const m = loaded();
    m.set("rax", 2n);
    m.set("rdx", 0n);
    m.memory.writeU32(AREA + 24, 0x1f80);
    const before = stateBytes(m).slice(160, 416);
    assert.equal(apply(m, unit, ...RESTORE), "ok");
    assert.equal(m.xsave.getBigUint64(HEADER, true), 0x205n);
    assert.equal(m.xsave.getUint32(24, true), 0x1f80);
    assert.deepEqual(stateBytes(m).slice(160, 416), before);
  });

  it("refuses what the processor refuses, and changes nothing then", () => {
    const refused = (prepare: (m: FixupRig) => void, ...code: number[]): string => {
      const m = loaded();
      m.memory.writeU32(AREA + 24, 0x1f80);
      prepare(m);
      const before = stateBytes(m);
      const result = apply(m, unit, ...code);
      assert.deepEqual(stateBytes(m), before);
      return result;
    };
    for (const code of [SAVE, RESTORE]) {
      assert.equal(
        refused((m) => m.setControl("cr4", 0n), ...code),
        "#6 undefined",
      );
      assert.equal(
        refused(() => undefined, 0xf0, ...code),
        "#6 undefined",
      );
      assert.equal(
        refused((m) => m.setControl("cr0", 1n << 3n), ...code),
        "#7 undefined",
      );
      for (const offset of [1n, 16n, 32n]) {
        assert.equal(
          refused((m) => m.set("rsi", BigInt(AREA) + offset), ...code),
          "#13 0",
        );
      }
    }
    const header: [offset: number, value: bigint][] = [
      [0, 1n << 3n],
      [0, 1n << 63n],
      [8, 1n],
      [8, 1n << 63n],
      [16, 1n],
    ];
    for (const [offset, value] of header) {
      assert.equal(
        refused((m) => m.memory.writeU64(AREA + HEADER + offset, value), ...RESTORE),
        "#13 0",
      );
    }
    assert.equal(
      refused((m) => m.memory.writeU32(AREA + 24, 0x1_0000), ...RESTORE),
      "#13 0",
    );
    // It does not matter where nothing loads it.
    const m = loaded();
    m.memory.writeU32(AREA + 24, 0x1_0000);
    m.set("rax", 0x201n);
    m.set("rdx", 0n);
    assert.equal(apply(m, unit, ...RESTORE), "ok");
  });
});
