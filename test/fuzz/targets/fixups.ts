// The instructions that are done by hand, with any bytes, registers, control registers and page
// tables, while another processor of the guest changes memory.
import { cmpxchg16b } from "../../../vmm/fixups/cmpxchg16b.js";
import type { FixupContext, InstructionFixup } from "../../../vmm/fixups/fixup.js";
import { fwait } from "../../../vmm/fixups/fwait.js";
import { GuestFault } from "../../../vmm/fixups/guest-fault.js";
import { GuestRegisters } from "../../../vmm/fixups/guest-registers.js";
import { decode } from "../../../vmm/fixups/instruction.js";
import { int3 } from "../../../vmm/fixups/int3.js";
import { popcnt } from "../../../vmm/fixups/popcnt.js";
import { smap } from "../../../vmm/fixups/smap.js";
import { xcr } from "../../../vmm/fixups/xcr.js";
import { xsave } from "../../../vmm/fixups/xsave.js";
import { KvmRun } from "../../../vmm/kvm/kvm-run.js";
import { GuestMemoryError } from "../../../vmm/errors.js";
import { SIZEOF_KVM_XSAVE, kvm_run, kvm_sregs, kvm_sync_regs } from "../../../vmm/sys/kvm-abi.js";
import { mmapAnonymous } from "../../../vmm/sys/memory.js";
import { HostileMemory } from "../hostile-memory.js";
import { Random } from "../random.js";
import type { FuzzTarget } from "../target.js";

const RAM_BYTES = 0x1_0000;
const RUN_BYTES = 4096;
/** One behind the other, over the same memory. */
const INSTRUCTIONS = 60;
const LOCK = new Int32Array(new SharedArrayBuffer(4));
const COMPONENTS = [
  { index: 2, offset: 576, size: 256 },
  { index: 5, offset: 832, size: 64 },
];
const UNITS: readonly InstructionFixup[] = [xsave(COMPONENTS), smap, int3, cmpxchg16b(LOCK, 0), popcnt, xcr, fwait];
/** Prefixes and opcodes that lead somewhere; the rest of an instruction is any bytes. */
const BEGINNINGS: readonly (readonly number[])[] = [
  [0xcc],
  [0x9b],
  [0x0f, 0x01],
  [0x0f, 0xae],
  [0xf0, 0x48, 0x0f, 0xc7],
  [0xf3, 0x0f, 0xb8],
  [0xf3, 0x48, 0x0f, 0xb8],
  [0x66, 0x67, 0x64, 0xf3, 0x0f, 0xb8],
  [],
];
const SREGS = kvm_run.s + kvm_sync_regs.sregs;

/** Registers of one vCPU in memory of this process, shared by all cases. */
let mapped: KvmRun | undefined;

function u64(random: Random): bigint {
  if (random.oneIn(3)) return BigInt(random.below(RAM_BYTES));
  return (BigInt(random.oneIn(2) ? random.value() : 0) << 32n) | BigInt(random.value());
}

/** Sets of tables that cases begin with, and entries that each has for itself. */
const TABLE_SETS = 16;
const OWN_ENTRIES = 64;
/** As they were made, by number: making 64 KiB of them takes longer than a case. */
const made = new Map<number, Uint8Array>();

function entry(random: Random): bigint {
  // Mostly what leads on inside RAM; sometimes anything.
  if (random.oneIn(8)) return u64(random);
  return BigInt(random.below(RAM_BYTES / 0x1000) * 0x1000) | BigInt(random.below(8));
}

function tableSet(number: number): Uint8Array {
  const known = made.get(number);
  if (known !== undefined) return known;
  const random = new Random(number);
  const bytes = new Uint8Array(BigUint64Array.from({ length: RAM_BYTES / 8 }, () => entry(random)).buffer);
  made.set(number, bytes);
  return bytes;
}

function fillTables(memory: HostileMemory, random: Random): void {
  const bytes = tableSet(random.below(TABLE_SETS));
  // A quarter lies below the hole, where there is one.
  const quarter = RAM_BYTES / 4;
  for (let at = 0; at < RAM_BYTES; at += quarter) {
    memory.slice(memory.at(at, quarter), quarter).set(bytes.subarray(at, at + quarter));
  }
  for (let left = OWN_ENTRIES; left > 0; left--) {
    memory.writeU64(memory.at(8 * random.below(RAM_BYTES / 8), 8), entry(random));
  }
}

function contextOf(run: KvmRun, memory: HostileMemory, random: Random): FixupContext {
  return {
    registers: new GuestRegisters(run),
    memory,
    vcpu: {
      getXsave: () => new DataView(new ArrayBuffer(SIZEOF_KVM_XSAVE)),
      setXsave: () => undefined,
      getXcr0: () => u64(random),
      setXcr0: () => undefined,
    },
  };
}

/** One instruction with registers of its own. */
function runInstruction(random: Random, run: KvmRun, context: FixupContext): void {
  const bytes = Uint8Array.from([...random.pick(BEGINNINGS), ...Array.from({ length: 12 }, () => random.below(256))]);
  const instruction = decode(bytes.subarray(0, random.oneIn(8) ? random.below(16) : 15));
  if (instruction === undefined) return;
  if (instruction.length < 1 || instruction.length > 15) throw new Error(`Length ${String(instruction.length)}`);
  const unit = UNITS.find((candidate) => candidate.matches(instruction));
  if (unit === undefined) return;
  // From one draw, as the tables.
  const values = new Random(random.u32());
  for (let at = kvm_run.s; at < SREGS + kvm_sregs.interrupt_bitmap; at += 8) run.storeU64(at, u64(values));
  if (!random.oneIn(4)) run.storeU64(SREGS + kvm_sregs.cr3, BigInt(random.below(16) * 0x1000));
  try {
    unit.apply(instruction, context);
  } catch (error) {
    if (error instanceof GuestMemoryError) throw new Error("An access outside RAM", { cause: error });
    if (!(error instanceof GuestFault)) throw error;
    if (error.vector < 0 || error.vector > 31) throw new Error(`Vector ${String(error.vector)}`, { cause: error });
  }
  if (LOCK[0] !== 0) throw new Error("The lock is still held");
}

export const fixupsTarget: FuzzTarget = {
  name: "fixups",
  run(random, layout) {
    mapped ??= new KvmRun(mmapAnonymous(RUN_BYTES), RUN_BYTES);
    const memory = new HostileMemory(RAM_BYTES, random, layout);
    // From one draw, which leaves the others to what is done with them.
    const tables = new Random(random.u32());
    memory.asGuest(() => {
      fillTables(memory, tables);
    });
    memory.changeOneIn = random.pick([0, 2, 16]);
    const context = contextOf(mapped, memory, random);
    for (let left = INSTRUCTIONS; left > 0; left--) {
      random.operations++;
      runInstruction(random, mapped, context);
    }
  },
};
