// Needs: nothing. Instructions from their bytes, against what the processor's manual says about them.
import assert from "node:assert/strict";
import { decode, extension, type Instruction } from "../../../vmm/fixups/instruction.js";

const of = (...bytes: number[]): Instruction => {
  const instruction = decode(Uint8Array.from(bytes));
  assert.ok(instruction !== undefined, "not decoded");
  return instruction;
};
const none = (...bytes: number[]): void => assert.equal(decode(Uint8Array.from(bytes)), undefined);

describe("instruction", () => {
  it("one and two bytes of opcode, with and without ModRM", () => {
    const int3 = of(0xcc, 0x90);
    assert.deepEqual(int3, {
      length: 1,
      opcode: 0xcc,
      hasRep: false,
      hasRepne: false,
      hasOperandSize: false,
      hasAddressSize: false,
      hasLock: false,
      rexW: false,
      segment: undefined,
      modrm: undefined,
      reg: 0,
      rm: 0,
      memory: undefined,
    });
    assert.deepEqual([of(0x9b).opcode, of(0x9b).length, of(0x9b).modrm], [0x9b, 1, undefined]);
    const stac = of(0x0f, 0x01, 0xcb);
    assert.deepEqual([stac.opcode, stac.length, stac.modrm, stac.reg, stac.rm], [0x0f01, 3, 0xcb, 1, 3]);
    assert.equal(stac.memory, undefined);
    // The other one-byte opcodes have a ModRM byte here.
    assert.deepEqual([of(0x89, 0xc1).length, of(0x89, 0xc1).modrm], [2, 0xc1]);
  });

  it("prefixes in any order, of which the last repeat and the last segment count", () => {
    const popcnt = (...prefixes: number[]): Instruction => of(...prefixes, 0x0f, 0xb8, 0xc8);
    const flags = (...prefixes: number[]): boolean[] => {
      const { hasRep, hasRepne, hasOperandSize, hasAddressSize, hasLock } = popcnt(...prefixes);
      return [hasRep, hasRepne, hasOperandSize, hasAddressSize, hasLock];
    };
    assert.deepEqual(flags(), [false, false, false, false, false]);
    assert.deepEqual(flags(0xf3), [true, false, false, false, false]);
    assert.deepEqual(flags(0xf2), [false, true, false, false, false]);
    assert.deepEqual(flags(0xf2, 0xf3), [true, false, false, false, false]);
    assert.deepEqual(flags(0xf3, 0xf2), [false, true, false, false, false]);
    assert.deepEqual(flags(0x66), [false, false, true, false, false]);
    assert.deepEqual(flags(0x67), [false, false, false, true, false]);
    assert.deepEqual(flags(0xf0), [false, false, false, false, true]);
    assert.deepEqual(flags(0x66, 0x67, 0xf0, 0xf3), [true, false, true, true, true]);
    assert.deepEqual(
      [popcnt(0x64).segment, popcnt(0x65).segment, popcnt(0x65, 0x64).segment, popcnt(0x64, 0x65).segment],
      ["fs", "gs", "fs", "gs"],
    );
    // Segments without a base in 64-bit mode change nothing.
    for (const prefix of [0x26, 0x2e, 0x36, 0x3e]) {
      assert.deepEqual([popcnt(prefix).segment, popcnt(prefix).length], [undefined, 4]);
    }
  });

  it("REX widens: W the operand, R the register, B the other one, X the index", () => {
    const bare = of(0x0f, 0xb8, 0xc8);
    assert.deepEqual([bare.rexW, bare.reg, bare.rm], [false, 1, 0]);
    const rex = (bits: number): (number | boolean)[] => {
      const { rexW, reg, rm, length } = of(0x40 | bits, 0x0f, 0xb8, 0xca);
      return [rexW, reg, rm, length];
    };
    assert.deepEqual(rex(0), [false, 1, 2, 4]);
    assert.deepEqual(rex(8), [true, 1, 2, 4]);
    assert.deepEqual(rex(4), [false, 9, 2, 4]);
    assert.deepEqual(rex(2), [false, 1, 2, 4]);
    assert.deepEqual(rex(1), [false, 1, 10, 4]);
    assert.deepEqual(rex(15), [true, 9, 10, 4]);
  });

  it("memory operands by base and displacement", () => {
    const memory = (...bytes: number[]): unknown => of(0x0f, 0xae, ...bytes).memory;
    const operand = (base: number | "rip" | undefined, displacement = 0n): unknown => ({
      base,
      index: undefined,
      scale: 1,
      displacement,
    });
    assert.deepEqual(memory(0x26), operand(6));
    assert.deepEqual(memory(0x00), operand(0));
    assert.deepEqual(memory(0x46, 0x10), operand(6, 16n));
    assert.deepEqual(memory(0x46, 0xf0), operand(6, -16n));
    assert.deepEqual(memory(0x86, 0x78, 0x56, 0x34, 0x12), operand(6, 0x1234_5678n));
    assert.deepEqual(memory(0x86, 0xff, 0xff, 0xff, 0xff), operand(6, -1n));
    // Without a base register, 101 is relative to RIP; with a displacement it is RBP.
    assert.deepEqual(memory(0x05, 0x10, 0, 0, 0), operand("rip", 16n));
    assert.deepEqual(memory(0x45, 0x10), operand(5, 16n));
    assert.deepEqual(memory(0x85, 0x10, 0, 0, 0), operand(5, 16n));
    // REX.B does not turn it into R13.
    assert.deepEqual(of(0x41, 0x0f, 0xae, 0x05, 0x10, 0, 0, 0).memory, operand("rip", 16n));
    assert.deepEqual(of(0x41, 0x0f, 0xae, 0x06).memory, operand(14));
    assert.deepEqual(
      [[0x26], [0x46, 1], [0x86, 1, 2, 3, 4], [0x05, 1, 2, 3, 4]].map((bytes) => of(0x0f, 0xae, ...bytes).length),
      [3, 4, 7, 7],
    );
  });

  it("memory operands by SIB: base, index, scale", () => {
    const memory = (rex: number, ...bytes: number[]): unknown => of(0x40 | rex, 0x0f, 0xae, ...bytes).memory;
    const operand = (
      base: number | undefined,
      index: number | undefined,
      scale: number,
      displacement = 0n,
    ): unknown => ({
      base,
      index,
      scale,
      displacement,
    });
    assert.deepEqual(memory(0, 0x04, 0x1e), operand(6, 3, 1));
    assert.deepEqual(memory(0, 0x04, 0x5e), operand(6, 3, 2));
    assert.deepEqual(memory(0, 0x04, 0x9e), operand(6, 3, 4));
    assert.deepEqual(memory(0, 0x04, 0xde), operand(6, 3, 8));
    assert.deepEqual(memory(1, 0x04, 0x1e), operand(14, 3, 1));
    assert.deepEqual(memory(2, 0x04, 0x1e), operand(6, 11, 1));
    assert.deepEqual(memory(3, 0x04, 0x1e), operand(14, 11, 1));
    // An index of 100 is none, but with REX.X it is R12.
    assert.deepEqual(memory(0, 0x04, 0x24), operand(4, undefined, 1));
    assert.deepEqual(memory(2, 0x04, 0x24), operand(4, 12, 1));
    // A base of 101 without displacement is none, but four bytes of displacement; also with REX.B.
    assert.deepEqual(memory(0, 0x04, 0x1d, 0x10, 0, 0, 0), operand(undefined, 3, 1, 16n));
    assert.deepEqual(memory(1, 0x04, 0x1d, 0x10, 0, 0, 0), operand(undefined, 3, 1, 16n));
    assert.deepEqual(memory(0, 0x44, 0x1d, 0x10), operand(5, 3, 1, 16n));
    assert.deepEqual(memory(1, 0x84, 0x1d, 0x10, 0, 0, 0), operand(13, 3, 1, 16n));
    assert.deepEqual(
      [
        of(0x0f, 0xae, 0x04, 0x1e).length,
        of(0x0f, 0xae, 0x44, 0x1e, 1).length,
        of(0x0f, 0xae, 0x04, 0x1d, 1, 2, 3, 4).length,
      ],
      [4, 5, 8],
    );
  });

  it("a REX prefix counts only right before the opcode; bytes that end early are nothing", () => {
    none();
    none(0x66);
    none(0x48);
    none(0x0f);
    none(0x0f, 0xb8);
    none(0x0f, 0xae, 0x46);
    none(0x0f, 0xae, 0x86, 1, 2, 3);
    none(0x0f, 0xae, 0x04);
    none(0x0f, 0xae, 0x04, 0x1d, 1, 2, 3);
    none(0x0f, 0xae, 0x05, 1, 2, 3);
    // An opcode after REX that would be a prefix before it.
    assert.equal(of(0x48, 0xf3, 0xc0).opcode, 0xf3);
  });

  it("15 bytes are an instruction, 16 are none", () => {
    const prefixes = (count: number): number[] => Array.from({ length: count }, () => 0x66);
    assert.equal(of(...prefixes(12), 0x0f, 0xb8, 0xc8).length, 15);
    none(...prefixes(13), 0x0f, 0xb8, 0xc8);
  });

  it("the opcode extension is the register field without REX", () => {
    for (let value = 0; value < 8; value++) assert.equal(extension(of(0x0f, 0xae, (value << 3) | 6)), value);
    assert.equal(extension(of(0x44, 0x0f, 0xae, 0x26)), 4);
    assert.equal(extension(of(0x0f, 0xae, 0xff)), 7);
    assert.equal(extension(of(0xcc)), 0);
  });
});
