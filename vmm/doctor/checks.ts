// What `vmlet doctor` reports: one finding a line, with a stable code for programs.

export type Status = "ok" | "note" | "bad";

export interface Finding {
  /** Stable name for programs, such as "kvm-device". */
  readonly code: string;
  readonly status: Status;
  readonly title: string;
  readonly detail: string;
  /** What to do about it, one sentence. */
  readonly cure?: string | undefined;
}

export interface Capability {
  /** UAPI name. */
  readonly name: string;
  readonly present: boolean;
  /** Without it, no guest boots. */
  readonly required: boolean;
}

export interface Verdict {
  readonly accelerator: "kvm" | "lab" | "none";
  readonly reason: string;
  /** What would make it better; empty if nothing is known. */
  readonly better: readonly string[];
}

export interface Diagnosis {
  readonly vmlet: string;
  readonly findings: readonly Finding[];
  readonly capabilities: readonly Capability[];
  /** Million guest kernel instructions a second, null if no KVM could be asked. */
  readonly guest_kernel_mips: number | null;
  readonly verdict: Verdict;
}
