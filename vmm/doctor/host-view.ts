// What the checks may look at. Everything comes through here, so that a test can hand them any host.
import type { Quirks } from "../fixups/quirks.js";

export type FileKind = "file" | "directory" | "character-device" | "other";

export interface FileFacts {
  readonly kind: FileKind;
  /** Permission bits. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** Of a device; 0 otherwise. */
  readonly major: number;
  readonly minor: number;
}

/** Files of the host by absolute path. What cannot be read is undefined or empty, never an error. */
export interface HostFiles {
  /** Text without the white space around it. */
  read(path: string): string | undefined;
  list(path: string): readonly string[];
  facts(path: string): FileFacts | undefined;
}

export interface CpuidRegisters {
  readonly eax: number;
  readonly ebx: number;
  readonly ecx: number;
  readonly edx: number;
}

/** Where the first try to use KVM ended. */
export interface KvmFailure {
  /** "open", or the UAPI name of the request. */
  readonly request: string;
  /** Name of the errno, or "" where it was none. */
  readonly errno: string;
  readonly message: string;
}

export interface Capability {
  /** UAPI name. */
  readonly name: string;
  readonly present: boolean;
  /** Without it, no guest boots. */
  readonly required: boolean;
}

/** What /dev/kvm says for itself. */
export interface KvmView {
  readonly failure: KvmFailure | undefined;
  /** Empty if KVM could not be asked. */
  readonly capabilities: readonly Capability[];
  readonly maxVcpus: number;
  /** Million guest kernel instructions a second, undefined if no guest could run. */
  readonly mips: number | undefined;
  /** What this KVM leaves to the monitor; undefined if nothing, or if it could not be asked. */
  readonly quirks: Quirks | undefined;
}

/** The guest that the package brings as sources. */
export interface GuestView {
  readonly hasInitramfs: boolean;
  /** Those that are built. A host needs one of them. */
  readonly kernels: readonly ("default" | "fast")[];
  /** Debian packages that building it lacks; empty if a guest is built. */
  readonly missingPackages: readonly string[];
}

export interface HostView {
  readonly files: HostFiles;
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly kvm: KvmView;
  readonly guest: GuestView;
  /** The processor's own answer, which no kernel has edited; undefined where it cannot be asked. */
  readonly cpuid: (leaf: number) => CpuidRegisters | undefined;
  /** A model-specific register; undefined without root rights or the msr module. */
  readonly msr: (index: number) => bigint | undefined;
  /** The kernel's log, or undefined where it may not be read. */
  readonly kernelLog: () => string | undefined;
  /** What the kernel's Landlock can do; 0 without it. */
  readonly landlockAbi: number;
  /** Absolute path of a program in the PATH. */
  readonly findProgram: (name: string) => string | undefined;
}
