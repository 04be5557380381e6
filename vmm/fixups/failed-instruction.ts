// The instruction that KVM could not emulate. KVM api.rst §5, KVM_EXIT_INTERNAL_ERROR.
import type { VcpuFd } from "../kvm/vcpu-fd.js";
import { KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES, kvm_run } from "../sys/kvm-abi.js";

/** The bytes at RIP that KVM gives with an emulation failure; empty if it gives none. */
export function failedInstruction(vcpu: Pick<VcpuFd, "run">): Uint8Array {
  const { run } = vcpu;
  const flags = run.loadU64(kvm_run.emulation_failure_flags);
  if (run.loadU32(kvm_run.internal_ndata) < 3) return new Uint8Array();
  if ((Number(flags) & KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES) === 0) return new Uint8Array();
  const size = run.load(kvm_run.emulation_failure_insn_size, 1);
  return run.copy(kvm_run.emulation_failure_insn_bytes, Math.min(size, 15));
}
