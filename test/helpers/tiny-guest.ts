// A tiny VM on this host's KVM, closed as a whole.
import { KvmSystem } from "../../vmm/kvm/system.js";
import type { VmFd } from "../../vmm/kvm/vm-fd.js";
import {
  TINY_CODE_GPA,
  TINY_RAM_BYTES,
  TINY_STACK_GPA,
  createTinyVm,
  type RegisterValues,
  type TinyVm,
  type TinyVmOptions,
} from "../../vmm/fixups/tiny-vm.js";

export const CODE_GPA = TINY_CODE_GPA;
export const STACK_GPA = TINY_STACK_GPA;
/** RAM; addresses above are mapped but are nobody's: MMIO. */
export const RAM_BYTES = TINY_RAM_BYTES;

export interface TinyGuest extends TinyVm {
  readonly system: KvmSystem;
}

/** A VM ready to run `code`; `registers` by name, such as rdx. `prepare` runs before the vCPU exists. */
export function tinyGuest(
  code: readonly number[],
  registers: RegisterValues = {},
  prepare: (vm: VmFd) => void = () => undefined,
  options: Pick<TinyVmOptions, "cpl" | "cr4"> = {},
): TinyGuest {
  const system = KvmSystem.open();
  const tiny = createTinyVm(system, { code, registers, prepare, ...options });
  return {
    ...tiny,
    system,
    close: () => {
      tiny.close();
      system.close();
    },
  };
}
