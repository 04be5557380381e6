// How fast this KVM runs a guest's kernel code: a counted loop in real mode, which is privilege
// level 0. Hardware runs it at the processor's speed; a software KVM emulates each instruction.
import type { KvmSystem } from "../kvm/system.js";
import { MappedGuestMemory } from "../memory/guest-memory.js";
import { PAGE_SIZE } from "../memory/layout.js";
import { KVM_EXIT_HLT, kvm_regs, kvm_segment, kvm_sregs, SIZEOF_KVM_REGS } from "../sys/kvm-abi.js";
import { exitName } from "../vcpu/exit-names.js";
import { HostError } from "../errors.js";

/** mov ecx, COUNT; loop: dec ecx; jnz loop; hlt */
const CODE = [0x66, 0xb9, 0, 0, 0, 0, 0x66, 0x49, 0x75, 0xfc, 0xf4];
const COUNT_AT = 2;
const INSTRUCTIONS_PER_TURN = 2;
const CODE_GPA = PAGE_SIZE;
const RESERVED_FLAG = 2n;

const FIRST_COUNT = 2000;
/** Long enough for a trustworthy time, short enough that nobody waits. */
const ENOUGH_MS = 20;
const MAX_COUNT = 2 ** 31;
/** Above this, no interpreter is at work. */
export const HARDWARE_MIPS = 100;

/** Million instructions a second. Throws if this KVM cannot run even this. */
export function measureGuestKernelMips(system: KvmSystem): number {
  for (let count = FIRST_COUNT; ; count *= 8) {
    const ms = timeLoop(system, count);
    if (ms >= ENOUGH_MS || count * 8 >= MAX_COUNT) return (count * INSTRUCTIONS_PER_TURN) / 1000 / ms;
  }
}

/** A fresh VM for each try: its time includes nothing but KVM_RUN. */
function timeLoop(system: KvmSystem, count: number): number {
  const memory = MappedGuestMemory.map(4 * PAGE_SIZE);
  const vm = system.createVm();
  try {
    memory.slice(CODE_GPA, CODE.length).set(CODE);
    memory.writeU32(CODE_GPA + COUNT_AT, count);
    for (const [slot, region] of memory.regions.entries()) vm.setMemoryRegion(slot, region);
    const vcpu = vm.createVcpu(0, system.vcpuMmapSize());
    try {
      const sregs = vcpu.getSregs();
      sregs.setBigUint64(kvm_sregs.cs + kvm_segment.base, 0n, true);
      sregs.setUint16(kvm_sregs.cs + kvm_segment.selector, 0, true);
      vcpu.setSregs(sregs);
      const regs = new DataView(new ArrayBuffer(SIZEOF_KVM_REGS));
      regs.setBigUint64(kvm_regs.rip, BigInt(CODE_GPA), true);
      regs.setBigUint64(kvm_regs.rflags, RESERVED_FLAG, true);
      vcpu.setRegs(regs);
      const started = performance.now();
      while (!vcpu.enter());
      const ms = performance.now() - started;
      if (vcpu.run.exitReason !== KVM_EXIT_HLT) {
        throw new HostError(`A guest of three instructions ends in ${exitName(vcpu.run.exitReason)} on this KVM`);
      }
      return ms;
    } finally {
      vcpu.close();
    }
  } finally {
    vm.close();
    memory.unmap();
  }
}
