// A guest of a few bytes: 64-bit code at privilege level 3, which every KVM runs on the
// processor itself, hardware or software. IOPL 3 lets it do port I/O.
import { KvmSystem } from "../../vmm/kvm/system.js";
import type { VcpuFd } from "../../vmm/kvm/vcpu-fd.js";
import type { VmFd } from "../../vmm/kvm/vm-fd.js";
import { MappedGuestMemory } from "../../vmm/memory/guest-memory.js";
import { SIZEOF_KVM_REGS, kvm_regs, kvm_sregs } from "../../vmm/sys/kvm-abi.js";
import { setSegment } from "../../vmm/x86/regs.js";

const PML4 = 0x1000;
const PDPT = 0x2000;
const PD = 0x3000;
/** Where the code lies and starts. */
export const CODE_GPA = 0x10000;
/** Top of the stack. */
export const STACK_GPA = 0x20000;
/** RAM; addresses above, up to 1 GiB, are mapped but are nobody's: MMIO. */
export const RAM_BYTES = 2 ** 21;
const MMIO_PAGES = 2;

const PRESENT_WRITABLE_USER = 7n;
const LARGE = 1n << 7n;
const RFLAGS_IOPL_3 = 0x3002n;
const USER = { base: 0, limit: 0xffff_ffff, dpl: 3, s: 1, g: 1 } as const;

export interface TinyGuest {
  readonly system: KvmSystem;
  readonly vm: VmFd;
  readonly vcpu: VcpuFd;
  readonly memory: MappedGuestMemory;
  close(): void;
}

/** A VM ready to run `code`; `registers` by name, such as rdx. `prepare` runs before the vCPU exists. */
export function tinyGuest(
  code: readonly number[],
  registers: Partial<Record<keyof typeof kvm_regs, number>> = {},
  prepare: (vm: VmFd) => void = () => undefined,
): TinyGuest {
  const system = KvmSystem.open();
  const memory = MappedGuestMemory.map(RAM_BYTES);
  memory.writeU64(PML4, BigInt(PDPT) | PRESENT_WRITABLE_USER);
  memory.writeU64(PDPT, BigInt(PD) | PRESENT_WRITABLE_USER);
  for (let i = 0; i < MMIO_PAGES; i++) {
    memory.writeU64(PD + 8 * i, BigInt(i * RAM_BYTES) | PRESENT_WRITABLE_USER | LARGE);
  }
  memory.slice(CODE_GPA, code.length).set(code);

  const vm = system.createVm();
  for (const [slot, region] of memory.regions.entries()) vm.setMemoryRegion(slot, region);
  prepare(vm);
  const vcpu = vm.createVcpu(0, system.vcpuMmapSize());
  vcpu.setCpuid(system.supportedCpuid());
  const sregs = vcpu.getSregs();
  setSegment(sregs, kvm_sregs.cs, { ...USER, selector: 0x33, type: 11, db: 0, l: 1 });
  for (const at of [kvm_sregs.ds, kvm_sregs.es, kvm_sregs.fs, kvm_sregs.gs, kvm_sregs.ss]) {
    setSegment(sregs, at, { ...USER, selector: 0x2b, type: 3, db: 1, l: 0 });
  }
  sregs.setBigUint64(kvm_sregs.cr0, 0x8001_0011n, true); // PG, WP, ET, PE
  sregs.setBigUint64(kvm_sregs.cr3, BigInt(PML4), true);
  sregs.setBigUint64(kvm_sregs.cr4, 0x20n, true); // PAE
  sregs.setBigUint64(kvm_sregs.efer, 0x500n, true); // LME, LMA
  vcpu.setSregs(sregs);
  const regs = new DataView(new ArrayBuffer(SIZEOF_KVM_REGS));
  const values = { rip: CODE_GPA, rsp: STACK_GPA, ...registers };
  for (const [name, value] of Object.entries(values)) {
    regs.setBigUint64(kvm_regs[name as keyof typeof kvm_regs], BigInt(value), true);
  }
  regs.setBigUint64(kvm_regs.rflags, RFLAGS_IOPL_3, true);
  vcpu.setRegs(regs);
  vcpu.resetFpu();
  return {
    system,
    vm,
    vcpu,
    memory,
    close: () => {
      vcpu.close();
      vm.close();
      memory.unmap();
      system.close();
    },
  };
}
