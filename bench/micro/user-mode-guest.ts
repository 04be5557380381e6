// The guest of bench/c/exit-loop.c, made with the product's own classes: user-mode code that
// writes one port for ever, which every KVM, hardware or software, runs on the processor itself.
import { closeSync } from "node:fs";
import { KvmSystem } from "../../vmm/kvm/system.js";
import type { VcpuFd } from "../../vmm/kvm/vcpu-fd.js";
import { MappedGuestMemory } from "../../vmm/memory/guest-memory.js";
import { KVM_CAP_COALESCED_PIO, SIZEOF_KVM_REGS, kvm_regs, kvm_sregs } from "../../vmm/sys/kvm-abi.js";
import { eventfd } from "../../vmm/sys/libc.js";
import { SERIAL0_PORT } from "../../vmm/memory/layout.js";
import { DEVICE_WORDS } from "../../vmm/vcpu/machine.js";
import type { MachineDescriptor } from "../../vmm/vcpu/messages.js";
import { VmShared } from "../../vmm/vcpu/shared.js";
import { setSegment } from "../../vmm/x86/regs.js";

const PML4 = 0x1000;
const PDPT = 0x2000;
const PD = 0x3000;
const CODE_GPA = 0x10000;
const STACK_GPA = 0x20000;
const RAM_BYTES = 2 ** 21;
/** out dx, al; jmp back */
const CODE = [0xee, 0xeb, 0xfd];

const PRESENT_WRITABLE_USER = 7n;
const LARGE = 1n << 7n;
const RFLAGS_IOPL_3 = 0x3002n;
const USER = { base: 0, limit: 0xffff_ffff, dpl: 3, s: 1, g: 1 } as const;

/** The port that the guest writes; no device of the machine has it. */
export const GUEST_PORT = 0x300;

export interface UserModeGuest {
  readonly vcpu: VcpuFd;
  /** For ThreadMachine, as the builder makes it; control words fresh at each call. */
  descriptor(): MachineDescriptor;
  close(): void;
}

export function userModeGuest(): UserModeGuest {
  const system = KvmSystem.open();
  const memory = MappedGuestMemory.map(RAM_BYTES);
  memory.writeU64(PML4, BigInt(PDPT) | PRESENT_WRITABLE_USER);
  memory.writeU64(PDPT, BigInt(PD) | PRESENT_WRITABLE_USER);
  memory.writeU64(PD, PRESENT_WRITABLE_USER | LARGE);
  memory.slice(CODE_GPA, CODE.length).set(CODE);
  const vm = system.createVm();
  for (const [slot, region] of memory.regions.entries()) vm.setMemoryRegion(slot, region);
  const coalescesSerial = system.checkExtension(KVM_CAP_COALESCED_PIO) > 0;
  if (coalescesSerial) vm.coalescePortWrites(SERIAL0_PORT, 1);
  const mmapSize = system.vcpuMmapSize();
  const vcpu = vm.createVcpu(0, mmapSize);
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
  regs.setBigUint64(kvm_regs.rip, BigInt(CODE_GPA), true);
  regs.setBigUint64(kvm_regs.rsp, BigInt(STACK_GPA), true);
  regs.setBigUint64(kvm_regs.rdx, BigInt(GUEST_PORT), true);
  regs.setBigUint64(kvm_regs.rflags, RFLAGS_IOPL_3, true);
  vcpu.setRegs(regs);
  vcpu.resetFpu();
  const eventfds = [eventfd(), eventfd()] as const;
  return {
    vcpu,
    descriptor: () => ({
      vcpus: [{ fd: vcpu.fd, runAddress: vcpu.run.address }],
      mmapSize,
      shared: VmShared.create(1, DEVICE_WORDS).buffer,
      memoryAddress: memory.hostAddress,
      memorySize: memory.size,
      serialIrqFd: eventfds[0],
      doorbellFd: eventfds[1],
      coalescesSerial,
      virtioDevices: 0,
      quirks: undefined,
    }),
    close: () => {
      eventfds.forEach(closeSync);
      vcpu.close();
      vm.close();
      memory.unmap();
      system.close();
    },
  };
}
