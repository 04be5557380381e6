// What crosses between the main thread and a vCPU thread: plain data, one interface a message.
import type { ErrorCode } from "../errors.js";
import type { Quirks } from "../fixups/quirks.js";

/** A vCPU as another thread of the process can open it. */
export interface VcpuAddress {
  readonly fd: number;
  /** Host address of the mapped kvm_run. */
  readonly runAddress: number;
}

/** Everything that a thread needs to serve exits of the VM. File descriptors belong to the main thread. */
export interface MachineDescriptor {
  readonly vcpus: readonly VcpuAddress[];
  /** Size of each vCPU's mapping in bytes. */
  readonly mmapSize: number;
  readonly shared: SharedArrayBuffer;
  readonly memoryAddress: number;
  /** `bytes` */
  readonly memorySize: number;
  /** Of WrittenPages. */
  readonly writtenPagesAddress: number;
  /** For its interrupts. */
  readonly vmFd: number;
  readonly doorbellFd: number;
  /** True if KVM holds writes of the serial port's THR back in the ring. */
  readonly coalescesSerial: boolean;
  /** Where the owner of the virtio devices answers: a range a device, or, with a bus, those of the PCI host bridge. */
  readonly virtioRanges: readonly { readonly gpa: number; readonly length: number }[];
  readonly hasPci: boolean;
  /** Where the command's channel is; 0 without one. */
  readonly commandChannelGpa: number;
  /** The vCPUs go on with saved state instead of entering a kernel. */
  readonly isRestored: boolean;
  /** What this KVM leaves to us; undefined if nothing, as on hardware. */
  readonly quirks: Quirks | undefined;
}

/** Posted to a thread: run a vCPU until it stops, or is to rest without a thread. */
export interface VcpuTurn {
  /** Comes back with what the thread has to say of it. */
  readonly turn: number;
  readonly machine: MachineDescriptor;
  readonly index: number;
  /** Wait until the main thread gives the vCPU up. */
  readonly standby: boolean;
}

/** Posted to a thread that is to end, once it has had its turns. */
export const END_THREAD = "end";

/** Posted by a thread, in this order: what it has to say, if anything, and that it has let go of the VM. */
export interface VcpuTurnReport {
  readonly turn: number;
  /** Undefined at the end of the turn. */
  readonly message: VcpuTripleFault | VcpuFailure | undefined;
}

/** Posted by a vCPU thread whose guest met a triple fault, before it stops the VM. */
export interface VcpuTripleFault {
  readonly code: "TRIPLE_FAULT";
  /** General and control registers, on lines. */
  readonly registers: string;
}

/** Posted by a vCPU thread that cannot go on. */
export interface VcpuFailure {
  readonly code: ErrorCode | "BUG";
  readonly message: string;
  readonly cure: string | undefined;
  readonly stack: string | undefined;
  /** The system call that was refused, if it was one. */
  readonly call?: { readonly request: string; readonly errno: number; readonly errnoName: string };
}
