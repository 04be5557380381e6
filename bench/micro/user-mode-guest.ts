// The guest of bench/c/exit-loop.c, made with the product's own classes: user-mode code that
// writes one port for ever, which every KVM, hardware or software, runs on the processor itself.
import { closeSync } from "node:fs";
import { KvmSystem } from "../../vmm/kvm/system.js";
import type { VcpuFd } from "../../vmm/kvm/vcpu-fd.js";
import { SERIAL0_PORT } from "../../vmm/memory/layout.js";
import { KVM_CAP_COALESCED_PIO } from "../../vmm/sys/kvm-abi.js";
import { eventfd } from "../../vmm/sys/events.js";
import { createTinyVm } from "../../vmm/fixups/tiny-vm.js";
import { DEVICE_WORDS } from "../../vmm/machine/thread-machine.js";
import type { MachineDescriptor } from "../../vmm/vcpu/messages.js";
import { VmShared } from "../../vmm/vcpu/shared.js";

/** out dx, al; jmp back */
const CODE = [0xee, 0xeb, 0xfd];

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
  const coalescesSerial = system.checkExtension(KVM_CAP_COALESCED_PIO) > 0;
  const tiny = createTinyVm(system, {
    code: CODE,
    registers: { rdx: GUEST_PORT },
    prepare: (vm) => {
      if (coalescesSerial) vm.coalescePortWrites(SERIAL0_PORT, 1);
    },
  });
  const { vcpu, memory } = tiny;
  const doorbell = eventfd();
  return {
    vcpu,
    descriptor: () => ({
      vcpus: [{ fd: vcpu.fd, runAddress: vcpu.run.address }],
      mmapSize: vcpu.run.length,
      shared: VmShared.create(1, DEVICE_WORDS).buffer,
      memoryAddress: memory.hostAddress,
      memorySize: memory.size,
      writtenPagesAddress: 0,
      vmFd: tiny.vm.fd,
      doorbellFd: doorbell,
      coalescesSerial,
      virtioRanges: [],
      hasPci: false,
      commandChannelGpa: 0,
      isRestored: false,
      quirks: undefined,
    }),
    close: () => {
      closeSync(doorbell);
      tiny.close();
      system.close();
    },
  };
}
