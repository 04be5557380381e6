// Turns an exit that cannot be answered into an error that says what the guest was doing.
import { VcpuExitError } from "../errors.js";
import { failedInstruction } from "../fixups/failed-instruction.js";
import { nameUnemulated } from "../fixups/unemulated.js";
import type { VcpuFd } from "../kvm/vcpu-fd.js";
import {
  KVM_EXIT_FAIL_ENTRY,
  KVM_EXIT_INTERNAL_ERROR,
  KVM_INTERNAL_ERROR_EMULATION,
  kvm_regs,
  kvm_run,
  kvm_segment,
  kvm_sregs,
} from "../sys/kvm-abi.js";
import { exitName } from "./exit-names.js";

const INTERNAL_ERRORS = [
  "",
  "an instruction that it cannot emulate",
  "simultaneous exceptions",
  "an exception during event delivery",
  "an unexpected exit of the hardware",
];

function hex(value: bigint | number): string {
  return `0x${value.toString(16)}`;
}

/** General and control registers on a few lines, for the error and for a triple fault's report. */
export function describeRegisters(vcpu: VcpuFd): string {
  const regs = vcpu.getRegs();
  const sregs = vcpu.getSregs();
  const general = Object.entries(kvm_regs).map(([name, offset]) => `${name}=${hex(regs.getBigUint64(offset, true))}`);
  const control = (["cr0", "cr2", "cr3", "cr4", "efer"] as const).map(
    (name) => `${name}=${hex(sregs.getBigUint64(kvm_sregs[name], true))}`,
  );
  const cs = hex(sregs.getUint16(kvm_sregs.cs + kvm_segment.selector, true));
  return [general.slice(16).concat(`cs=${cs}`, control), general.slice(0, 8), general.slice(8, 16)]
    .map((line) => `  ${line.join(" ")}`)
    .join("\n");
}

/** The error for the exit that the vCPU is stopped at. */
export function explainExit(vcpu: VcpuFd, index: number): VcpuExitError {
  const { run } = vcpu;
  const reason = run.exitReason;
  const where = `vCPU ${String(index)} stopped with ${exitName(reason)}`;
  const registers = describeRegisters(vcpu);
  if (reason === KVM_EXIT_INTERNAL_ERROR) {
    const suberror = run.loadU32(kvm_run.internal);
    const what = INTERNAL_ERRORS[suberror] ?? `suberror ${String(suberror)}`;
    const bytes = suberror === KVM_INTERNAL_ERROR_EMULATION ? failedInstruction(vcpu) : new Uint8Array();
    const { name, cure } = nameUnemulated(bytes);
    const named = name === undefined ? "" : `${name}, `;
    const shown = bytes.length > 0 ? ` (${named}bytes ${Buffer.from(bytes).toString("hex")})` : "";
    return new VcpuExitError(`${where}: KVM met ${what}${shown}\n${registers}`, { cure });
  }
  if (reason === KVM_EXIT_FAIL_ENTRY) {
    const hardware = hex(run.loadU64(kvm_run.fail_entry));
    return new VcpuExitError(`${where}: the processor refuses the guest's state (reason ${hardware})\n${registers}`);
  }
  return new VcpuExitError(`${where}, which this machine does not have\n${registers}`);
}
