// Needs: nothing. The guest's page tables as the processor walks them.
import assert from "node:assert/strict";
import { GuestFault } from "../../../vmm/fixups/guest-fault.js";
import { probeWrite, readLinear, readLinearU64, writeLinear } from "../../../vmm/fixups/linear-memory.js";
import { isCanonical, translate, type Access } from "../../../vmm/fixups/paging.js";
import {
  ACCESSED,
  DIRTY,
  NX,
  PD,
  PDPT,
  PML4,
  PML5,
  PRESENT,
  PT,
  RAM_BYTES,
  UNMAPPED,
  USER,
  WRITABLE,
  fixupRig,
  type FixupRig,
} from "../../helpers/fixup-rig.js";

const CR0_WP = 1n << 16n;
const LA57 = 1n << 12n;
const SMEP = 1n << 20n;
const SMAP = 1n << 21n;
const AC = 1n << 18n;
const PAGE_SIZE_BIT = 0x80n;

interface State {
  cr0?: bigint;
  cr3?: bigint;
  cr4?: bigint;
  rflags?: bigint;
  cpl?: number;
}

/** The address, or the fault as "#PF 2 at 0x1000". */
function walk(m: FixupRig, linear: bigint, access: Access, state: State = {}): number | string {
  try {
    return translate(
      m.memory,
      { cr0: CR0_WP, cr3: BigInt(PML4), cr4: 0n, rflags: 0n, cpl: 0, ...state },
      linear,
      access,
    );
  } catch (error) {
    assert.ok(error instanceof GuestFault);
    return `#${String(error.vector)} ${String(error.errorCode)} at 0x${(error.address ?? -1n).toString(16)}`;
  }
}

describe("paging", () => {
  it("finds a page of 4 KiB through four levels, and keeps the offset", () => {
    const m = fixupRig();
    assert.equal(walk(m, 0x1234n, "read"), 0x1234);
    assert.equal(walk(m, 0x1_ffffn, "read"), 0x1_ffff);
    m.setPage(0x5000, 0x1_2000n | USER | PRESENT);
    assert.equal(walk(m, 0x5abcn, "read"), 0x1_2abc);
    // Bits above the physical address are flags.
    m.setPage(0x5000, NX | (0x7ffn << 52n) | 0xe00n | 0x1_2000n | PRESENT);
    assert.equal(walk(m, 0x5abcn, "read"), 0x1_2abc);
    // Low bits of CR3 are flags, too.
    assert.equal(walk(m, 0x1234n, "read", { cr3: BigInt(PML4) | 0xfffn }), 0x1234);
  });

  it("each level has its own nine bits of the address", () => {
    const m = fixupRig();
    const table = WRITABLE | USER | PRESENT;
    for (const [level, at] of [PML4, PDPT, PD, PT].entries()) {
      const shift = BigInt(39 - 9 * level);
      for (const index of [1n, 2n, 255n]) {
        const next = level === 3 ? 0x1_3000n : BigInt([PDPT, PD, PT][level] ?? 0);
        m.memory.writeU64(at + Number(index) * 8, next | table);
        const expected = level === 3 ? 0x1_3123 : 0x123;
        assert.equal(walk(m, (index << shift) | 0x123n, "read"), expected, `level ${String(level)}`);
        m.memory.writeU64(at + Number(index) * 8, 0n);
        assert.equal(
          walk(m, (index << shift) | 0x123n, "read"),
          `#14 0 at 0x${((index << shift) | 0x123n).toString(16)}`,
        );
      }
    }
  });

  it("large pages of 2 MiB and 1 GiB; none at the top", () => {
    const m = fixupRig();
    m.memory.writeU64(PD + 8, 0x60_0000n | PAGE_SIZE_BIT | WRITABLE | PRESENT);
    assert.equal(walk(m, 0x20_0000n + 0x12_3456n, "read"), 0x60_0000 + 0x12_3456);
    m.memory.writeU64(PDPT + 8, 0x8000_0000n | PAGE_SIZE_BIT | WRITABLE | PRESENT);
    assert.equal(walk(m, 0x4000_0000n + 0x1234_5678n, "read"), 0x8000_0000 + 0x1234_5678);
    // PAT of a large page lies where the small ones have an address bit.
    m.memory.writeU64(PD + 8, 0x60_1000n | PAGE_SIZE_BIT | WRITABLE | PRESENT);
    assert.equal(walk(m, 0x20_0000n, "read"), 0x60_0000);
    m.memory.writeU64(PML4, BigInt(PDPT) | PAGE_SIZE_BIT | PRESENT);
    assert.equal(walk(m, 0x1000n, "read"), "#14 9 at 0x1000");
    assert.equal(walk(m, 0x1000n, "write", { cpl: 3 }), "#14 15 at 0x1000");
  });

  it("five levels with LA57", () => {
    const m = fixupRig();
    assert.equal(walk(m, 0x1234n, "read", { cr3: BigInt(PML5), cr4: LA57 }), 0x1234);
    m.memory.writeU64(PML5 + 8, BigInt(PML4) | USER | PRESENT);
    assert.equal(walk(m, (1n << 48n) | 0x1234n, "read", { cr3: BigInt(PML5), cr4: LA57 }), 0x1234);
    // With four levels, that bit is none of the walk's.
    assert.equal(walk(m, (1n << 48n) | 0x1234n, "read"), 0x1234);
    m.memory.writeU64(PML5, BigInt(PML4) | PAGE_SIZE_BIT | PRESENT);
    assert.equal(walk(m, 0x1234n, "read", { cr3: BigInt(PML5), cr4: LA57 }), "#14 9 at 0x1234");
  });

  it("what may be done: writable, user and executable add up over all levels", () => {
    const all = PRESENT | WRITABLE | USER;
    const cases: [what: string, entry: bigint, access: Access, state: State, fault: number | undefined][] = [
      ["a kernel reads", PRESENT, "read", {}, undefined],
      ["a kernel writes", PRESENT | WRITABLE, "write", {}, undefined],
      ["a kernel writes what is read-only", PRESENT, "write", {}, 3],
      ["a kernel writes what is read-only, without WP", PRESENT, "write", { cr0: 0n }, undefined],
      ["a kernel runs", PRESENT, "fetch", {}, undefined],
      ["a kernel runs data", PRESENT | NX, "fetch", {}, 0x11],
      ["a program reads", all, "read", { cpl: 3 }, undefined],
      ["a program writes", all, "write", { cpl: 3 }, undefined],
      ["a program runs", all, "fetch", { cpl: 3 }, undefined],
      ["a program reads the kernel's", PRESENT | WRITABLE, "read", { cpl: 3 }, 5],
      ["a program writes the kernel's", PRESENT | WRITABLE, "write", { cpl: 3 }, 7],
      ["a program runs the kernel's", PRESENT | WRITABLE, "fetch", { cpl: 3 }, 0x15],
      ["a program writes what is read-only", PRESENT | USER, "write", { cpl: 3 }, 7],
      ["a program writes what is read-only, without WP", PRESENT | USER, "write", { cpl: 3, cr0: 0n }, 7],
      ["a program runs data", all | NX, "fetch", { cpl: 3 }, 0x15],
      ["SMEP: a kernel runs a program's page", all, "fetch", { cr4: SMEP }, 0x11],
      ["SMEP: a kernel runs its own", PRESENT, "fetch", { cr4: SMEP }, undefined],
      ["SMEP: a kernel reads a program's page", all, "read", { cr4: SMEP }, undefined],
      ["SMAP: a kernel reads a program's page", all, "read", { cr4: SMAP }, 1],
      ["SMAP: a kernel writes a program's page", all, "write", { cr4: SMAP }, 3],
      ["SMAP: a kernel reads its own", PRESENT, "read", { cr4: SMAP }, undefined],
      ["SMAP: with AC", all, "read", { cr4: SMAP, rflags: AC }, undefined],
      ["SMAP: a program is a program", all, "read", { cr4: SMAP, cpl: 3 }, undefined],
      ["SMAP: a kernel runs a program's page without SMEP", all, "fetch", { cr4: SMAP }, undefined],
      ["AC without SMAP", all, "read", { rflags: AC }, undefined],
      ["level 2 is the kernel's", PRESENT, "read", { cpl: 2 }, undefined],
    ];
    for (const [what, entry, access, state, fault] of cases) {
      // The restriction may stand in the page's entry or above it.
      for (const at of [PT + 5 * 8, PML4]) {
        const m = fixupRig();
        const address = at === PML4 ? BigInt(PDPT) : 0x5000n;
        m.memory.writeU64(at, address | entry);
        const expected = fault === undefined ? 0x5008 : `#14 ${String(fault)} at 0x5008`;
        assert.equal(walk(m, 0x5008n, access, state), expected, `${what} (0x${at.toString(16)})`);
      }
    }
  });

  it("marks what it walks: accessed at every level, dirty at the page and for writes only", () => {
    const m = fixupRig();
    const bits = (at: number): bigint => m.memory.readU64(at) & (ACCESSED | DIRTY);
    walk(m, 0x5008n, "read");
    assert.deepEqual([PML4, PDPT, PD, PT + 40].map(bits), [ACCESSED, ACCESSED, ACCESSED, ACCESSED]);
    assert.deepEqual([bits(PT), bits(PT + 48)], [0n, 0n]);
    walk(m, 0x5008n, "write");
    assert.deepEqual([PML4, PDPT, PD, PT + 40].map(bits), [ACCESSED, ACCESSED, ACCESSED, ACCESSED | DIRTY]);
    assert.equal(m.memory.readU64(PT + 40), 0x5000n | PRESENT | WRITABLE | USER | ACCESSED | DIRTY);
    // A fault marks no page.
    const other = fixupRig();
    other.setPage(0x5000, 0x5000n | PRESENT);
    walk(other, 0x5008n, "write");
    assert.equal(other.memory.readU64(PT + 40), 0x5000n | PRESENT);
  });

  it("what is marked already is not written again", () => {
    const m = fixupRig();
    walk(m, 0x5008n, "write");
    const marks: number[] = [];
    m.memory.orU16 = (gpa) => marks.push(gpa);
    walk(m, 0x5008n, "write");
    walk(m, 0x5008n, "read");
    assert.deepEqual(marks, []);
    walk(m, 0x6008n, "read");
    assert.deepEqual(marks, [PT + 48]);
  });

  it("a table outside RAM is an entry that is not there", () => {
    const m = fixupRig();
    m.memory.writeU64(PDPT, BigInt(RAM_BYTES) | PRESENT);
    assert.equal(walk(m, 0x1000n, "write"), "#14 2 at 0x1000");
    assert.equal(walk(m, 0x1000n, "read", { cr3: 0xf_ffff_ffff_f000n }), "#14 0 at 0x1000");
    // The last table of RAM is one.
    const last = fixupRig();
    last.memory.writeU64(RAM_BYTES - 8, 0x7000n | PRESENT);
    last.memory.writeU64(PD, BigInt(RAM_BYTES - 0x1000) | PRESENT);
    assert.equal(walk(last, 0x1f_f000n, "read"), 0x7000);
  });
});

describe("linear memory", () => {
  it("canonical addresses have 48 bits, or 57 with five levels", () => {
    for (const [bits, cr4] of [
      [48n, 0n],
      [57n, LA57],
    ] as const) {
      const half = 1n << (bits - 1n);
      for (const good of [0n, half - 1n, (1n << 64n) - half, (1n << 64n) - 1n]) assert.ok(isCanonical(good, cr4));
      for (const bad of [half, (1n << 64n) - half - 1n, 1n << 63n]) assert.ok(!isCanonical(bad, cr4));
    }
  });

  function faultOf(action: () => void): string {
    try {
      action();
      return "none";
    } catch (error) {
      assert.ok(error instanceof GuestFault);
      return `#${String(error.vector)} ${String(error.errorCode)}`;
    }
  }

  it("five-level addresses are used where the guest has five levels, and are #GP elsewhere", () => {
    const m = fixupRig();
    m.memory.writeU64(PML5 + 8, BigInt(PML4) | PRESENT);
    m.memory.writeU64(0x1230, 0x1122_3344_5566_7788n);
    const high = (1n << 48n) | 0x1230n;
    assert.equal(
      faultOf(() => readLinearU64(m.memory, m.registers, high)),
      "#13 0",
    );
    m.setControl("cr3", BigInt(PML5));
    m.setControl("cr4", LA57);
    assert.equal(readLinearU64(m.memory, m.registers, high), 0x1122_3344_5566_7788n);
    assert.equal(
      faultOf(() => readLinearU64(m.memory, m.registers, 1n << 56n)),
      "#13 0",
    );
  });

  it("reads and writes over pages that lie apart", () => {
    const m = fixupRig();
    const table = PRESENT | WRITABLE;
    m.setPage(0x5000, 0x1_1000n | table);
    m.setPage(0x6000, 0x9000n | table);
    const bytes = Uint8Array.from({ length: 0x1800 }, (_, index) => index * 3 + 1);
    writeLinear(m.memory, m.registers, 0x5c00n, bytes.subarray(0, 0x800));
    assert.deepEqual(m.memory.slice(0x1_1c00, 0x400), bytes.subarray(0, 0x400));
    assert.deepEqual(m.memory.slice(0x9000, 0x400), bytes.subarray(0x400, 0x800));
    assert.deepEqual(readLinear(m.memory, m.registers, 0x5c00n, 0x800), bytes.subarray(0, 0x800));
    m.memory.slice(0x1_1ff8, 8).set([1, 2, 3, 4, 5, 6, 7, 8]);
    m.memory.slice(0x9000, 8).set([9, 10, 11, 12, 13, 14, 15, 16]);
    assert.equal(readLinearU64(m.memory, m.registers, 0x5ffcn), 0x0c0b_0a09_0807_0605n);
    // From the last byte of an address space to its first.
    assert.deepEqual(readLinear(m.memory, m.registers, 0x5000n, 0), new Uint8Array(0));
  });

  it("a fault on a later page leaves the first as it was, and says where", () => {
    const m = fixupRig();
    const before = m.memory.slice(UNMAPPED - 0x10, 0x10).slice();
    assert.throws(
      () => writeLinear(m.memory, m.registers, BigInt(UNMAPPED - 8), new Uint8Array(16).fill(1)),
      (error) => error instanceof GuestFault && error.address === BigInt(UNMAPPED) && error.errorCode === 2,
    );
    assert.deepEqual(m.memory.slice(UNMAPPED - 0x10, 0x10), before);
    assert.equal(
      faultOf(() => probeWrite(m.memory, m.registers, BigInt(UNMAPPED - 8), 8)),
      "none",
    );
    assert.equal(
      faultOf(() => probeWrite(m.memory, m.registers, BigInt(UNMAPPED - 8), 9)),
      "#14 2",
    );
    assert.equal(
      faultOf(() => readLinear(m.memory, m.registers, BigInt(UNMAPPED - 8), 9)),
      "#14 0",
    );
    assert.deepEqual(m.memory.slice(UNMAPPED - 0x10, 0x10), before);
  });

  it("a page outside RAM is #GP, also if only its end is", () => {
    const m = fixupRig();
    m.setPage(0x5000, BigInt(RAM_BYTES) | PRESENT | WRITABLE);
    assert.equal(
      faultOf(() => readLinear(m.memory, m.registers, 0x5000n, 1)),
      "#13 0",
    );
    m.setPage(0x5000, BigInt(RAM_BYTES - 0x1000) | PRESENT | WRITABLE);
    assert.equal(
      faultOf(() => readLinear(m.memory, m.registers, 0x5000n, 0x1000)),
      "none",
    );
  });

  it("addresses end at 2^64 and go on at 0", () => {
    const m = fixupRig();
    // The last page of the address space: index 511 at every level.
    const table = PRESENT | WRITABLE;
    m.memory.writeU64(PML4 + 511 * 8, BigInt(PDPT) | table);
    m.memory.writeU64(PDPT + 511 * 8, BigInt(PD) | table);
    m.memory.writeU64(PD + 511 * 8, BigInt(PT) | table);
    m.memory.writeU64(PT + 511 * 8, 0x7000n | table);
    m.memory.slice(0x7ff8, 8).set([1, 2, 3, 4, 5, 6, 7, 8]);
    m.memory.slice(0, 8).set([9, 10, 11, 12, 13, 14, 15, 16]);
    assert.deepEqual([...readLinear(m.memory, m.registers, (1n << 64n) - 4n, 8)], [5, 6, 7, 8, 9, 10, 11, 12]);
  });
});
