// A VM of 2 MiB for code of a few bytes: no kernel, no devices, no interrupt table. For questions
// to KVM itself (probes) and for the tests. One large page maps RAM to itself, a second one maps
// addresses that no memory slot backs, so that an access there is an exit.
import type { KvmSystem } from "../kvm/system.js";
import type { VcpuFd } from "../kvm/vcpu-fd.js";
import type { VmFd } from "../kvm/vm-fd.js";
import { MappedGuestMemory } from "../memory/guest-memory.js";
import { SIZEOF_KVM_REGS, kvm_regs, kvm_sregs } from "../sys/kvm-abi.js";
import { setSegment } from "../x86/regs.js";

export const TINY_RAM_BYTES = 2 ** 21;
/** First address that is no RAM, mapped like RAM. */
export const TINY_MMIO_GPA = TINY_RAM_BYTES;
export const TINY_CODE_GPA = 0x1_0000;
export const TINY_STACK_GPA = 0x2_0000;

const PML4 = 0x1000;
const PDPT = 0x2000;
const PD = 0x3000;
/** User code may use all of it; kernel code too, without SMEP and SMAP. */
const PRESENT_WRITABLE_USER = 7n;
const LARGE = 1n << 7n;

const CR0_PE_ET_WP_PG = 0x8001_0011n;
export const CR4_PAE = 1n << 5n;
const EFER_SCE_LME_LMA = 0x501n;
const RFLAGS_RESERVED = 0x2n;
const RFLAGS_IOPL_3 = 0x3000n;

export type RegisterValues = Partial<Record<keyof typeof kvm_regs, number>>;

export interface TinyVm {
  readonly vm: VmFd;
  readonly vcpu: VcpuFd;
  readonly memory: MappedGuestMemory;
  readonly close: () => void;
}

export interface TinyVmOptions {
  readonly code: readonly number[];
  /** 3 by default: user code runs natively even on a software KVM. */
  readonly cpl?: 0 | 3;
  readonly registers?: RegisterValues;
  /** Beside PAE. */
  readonly cr4?: bigint;
  /** Runs before the vCPU exists. */
  readonly prepare?: (vm: VmFd) => void;
}

/** Leaves nothing behind if it throws. */
export function createTinyVm(system: KvmSystem, options: TinyVmOptions): TinyVm {
  const undos: (() => void)[] = [];
  const close = (): void => {
    for (let undo = undos.pop(); undo !== undefined; undo = undos.pop()) undo();
  };
  try {
    return { ...makeTinyVm(system, options, (undo) => void undos.push(undo)), close };
  } catch (error) {
    close();
    throw error;
  }
}

function makeTinyVm(
  system: KvmSystem,
  { code, prepare, registers = {}, cpl = 3, cr4 = 0n }: TinyVmOptions,
  undo: (unmake: () => void) => void,
): Omit<TinyVm, "close"> {
  const memory = MappedGuestMemory.map(TINY_RAM_BYTES);
  undo(() => {
    memory.unmap();
  });
  memory.writeU64(PML4, BigInt(PDPT) | PRESENT_WRITABLE_USER);
  memory.writeU64(PDPT, BigInt(PD) | PRESENT_WRITABLE_USER);
  for (const i of [0, 1]) memory.writeU64(PD + 8 * i, BigInt(i * TINY_RAM_BYTES) | PRESENT_WRITABLE_USER | LARGE);
  memory.slice(TINY_CODE_GPA, code.length).set(code);

  const vm = system.createVm();
  undo(() => {
    vm.close();
  });
  for (const [slot, region] of memory.regions.entries()) vm.setMemoryRegion(slot, region);
  prepare?.(vm);
  const vcpu = vm.createVcpu(0, system.vcpuMmapSize());
  undo(() => {
    vcpu.close();
  });
  vcpu.setCpuid(system.supportedCpuid());
  enterLongMode(vcpu, cpl, cr4);
  setRegisters(vcpu, { rip: TINY_CODE_GPA, rsp: TINY_STACK_GPA, ...registers });
  vcpu.resetFpu();
  return { vm, vcpu, memory };
}

/** 64-bit mode with flat segments at the privilege level. */
export function enterLongMode(vcpu: VcpuFd, cpl: 0 | 3, cr4 = 0n): void {
  const flat = { base: 0, limit: 0xffff_ffff, dpl: cpl, s: 1, g: 1 } as const;
  const sregs = vcpu.getSregs();
  setSegment(sregs, kvm_sregs.cs, { ...flat, selector: cpl === 3 ? 0x33 : 0x10, type: 11, db: 0, l: 1 });
  for (const at of [kvm_sregs.ds, kvm_sregs.es, kvm_sregs.fs, kvm_sregs.gs, kvm_sregs.ss]) {
    setSegment(sregs, at, { ...flat, selector: cpl === 3 ? 0x2b : 0x18, type: 3, db: 1, l: 0 });
  }
  sregs.setBigUint64(kvm_sregs.cr0, CR0_PE_ET_WP_PG, true);
  sregs.setBigUint64(kvm_sregs.cr3, BigInt(PML4), true);
  sregs.setBigUint64(kvm_sregs.cr4, CR4_PAE | cr4, true);
  sregs.setBigUint64(kvm_sregs.efer, EFER_SCE_LME_LMA, true);
  vcpu.setSregs(sregs);
}

/** The general registers; those that are not named are zero. User code may use ports. */
export function setRegisters(vcpu: VcpuFd, values: RegisterValues): void {
  const regs = new DataView(new ArrayBuffer(SIZEOF_KVM_REGS));
  regs.setBigUint64(kvm_regs.rflags, RFLAGS_RESERVED | RFLAGS_IOPL_3, true);
  for (const [name, value] of Object.entries(values)) {
    regs.setBigUint64(kvm_regs[name as keyof typeof kvm_regs], BigInt(value), true);
  }
  vcpu.setRegs(regs);
}
