// One base class; callers match on `code`, people read `message`.
// The message starts with a capital, names the value and the limit, and never repeats its cause.

/** Every stable error code, in the order of the classes below. */
export const ERROR_CODES = [
  "ERR_CONFIG",
  "ERR_KERNEL_IMAGE",
  "ERR_DISK",
  "ERR_HOST",
  "ERR_SYSTEM_CALL",
  "ERR_KVM_IOCTL",
  "ERR_SNAPSHOT",
  "ERR_VM_STATE",
  "ERR_GUEST_MEMORY",
  "ERR_BUS",
  "ERR_VCPU_EXIT",
  "ERR_LAB",
  "ERR_IMAGE",
  "ERR_AGENT",
  "ERR_GUEST_REQUEST",
  "ERR_EXEC",
] as const;
export type ErrorCode = (typeof ERROR_CODES)[number];

/** Base of all errors that the monitor throws on purpose. */
export class VmmError extends Error {
  readonly code: ErrorCode;
  /** What to do next, one sentence, or undefined where nothing is known to help. */
  readonly cure: string | undefined;

  constructor(code: ErrorCode, message: string, options?: { cause?: unknown; cure?: string | undefined }) {
    super(message, options?.cause === undefined ? undefined : { cause: options.cause });
    this.name = new.target.name;
    this.code = code;
    this.cure = options?.cure;
  }
}

/** What the user asked for makes no sense; thrown before any resource exists. */
export class ConfigError extends VmmError {
  /** One line a problem, all that were found. */
  readonly problems: readonly string[];

  constructor(problems: readonly string[]) {
    super("ERR_CONFIG", problems.join("\n"));
    this.problems = problems;
  }
}

/** The kernel image or initrd cannot be booted. */
export class KernelImageError extends VmmError {
  constructor(message: string, options?: { cause?: unknown; cure?: string }) {
    super("ERR_KERNEL_IMAGE", message, options);
  }
}

/** A file or device cannot be a disk of the guest; thrown before the guest starts. */
export class DiskError extends VmmError {
  constructor(message: string, options?: { cause?: unknown; cure?: string | undefined }) {
    super("ERR_DISK", message, options);
  }
}

/** The host lacks something: the device node, a right, a capability, a program. */
export class HostError extends VmmError {
  constructor(message: string, options?: { cause?: unknown; cure?: string | undefined }) {
    super("ERR_HOST", message, options);
  }
}

/** The host's kernel has refused a system call. */
export class SystemCallError extends VmmError {
  /** The call, such as "mmap"; of an ioctl its UAPI name. */
  readonly request: string;
  /** Positive errno. */
  readonly errno: number;
  readonly errnoName: string;

  constructor(request: string, errno: number, errnoName: string, cure?: string, code: ErrorCode = "ERR_SYSTEM_CALL") {
    super(code, `${request} failed with ${errnoName} (${String(errno)})`, { cure });
    this.request = request;
    this.errno = errno;
    this.errnoName = errnoName;
  }
}

/** KVM has refused a request: one of the ioctls whose UAPI names begin with KVM_. */
export class KvmIoctlError extends SystemCallError {
  constructor(request: string, errno: number, errnoName: string, cure?: string) {
    super(request, errno, errnoName, cure, "ERR_KVM_IOCTL");
  }
}

/** A snapshot cannot be made, or cannot be restored: its files, this host, or what it needs does not fit. */
export class SnapshotError extends VmmError {
  constructor(message: string, options?: { cause?: unknown; cure?: string | undefined }) {
    super("ERR_SNAPSHOT", message, options);
  }
}

/** A method of a VM was called at a time of the VM's life when it makes no sense. */
export class VmStateError extends VmmError {
  readonly method: string;
  /** "built", "running", "stopped" or "closed". */
  readonly state: string;

  constructor(method: string, state: string, inWords: string) {
    super("ERR_VM_STATE", `${method}() cannot be called on a VM that ${inWords}`);
    this.method = method;
    this.state = state;
  }
}

/** An access outside guest RAM, or over the end of a region. */
export class GuestMemoryError extends VmmError {
  constructor(message: string) {
    super("ERR_GUEST_MEMORY", message);
  }
}

/** A device range that is empty, overflows or overlaps another. */
export class BusError extends VmmError {
  constructor(message: string) {
    super("ERR_BUS", message);
  }
}

/** KVM_RUN ended in a way that cannot be answered; the message carries the registers. */
export class VcpuExitError extends VmmError {
  constructor(message: string, options?: { cure?: string | undefined }) {
    super("ERR_VCPU_EXIT", message, options);
  }
}

/** The lab could not be built or started. */
export class LabError extends VmmError {
  constructor(message: string, options?: { cause?: unknown; cure?: string }) {
    super("ERR_LAB", message, options);
  }
}

/**
 * Why the conversation with a guest's agent is over: "closed" by this side, "gone" (the guest, or what carries the bytes, has
 * ended), "silent" (no answer in time), "version" (another protocol), "protocol" (the guest has broken it).
 */
export type AgentErrorReason = "closed" | "gone" | "silent" | "version" | "protocol";

/** The connection to the guest's agent is over: all that was under way on it fails with this, and all that is asked later. */
export class AgentError extends VmmError {
  readonly reason: AgentErrorReason;

  constructor(reason: AgentErrorReason, message: string, options?: { cause?: unknown; cure?: string | undefined }) {
    super("ERR_AGENT", message, options);
    this.reason = reason;
  }
}

/** The guest has refused what was asked of it: a file that is not there, a mount that is not allowed. */
export class GuestRequestError extends VmmError {
  /** What was asked, such as "read /etc/passwd". */
  readonly request: string;
  /** Positive errno of Linux; 0 where none fits. */
  readonly errno: number;
  /** Its name, such as "ENOENT"; empty for 0. */
  readonly errnoName: string;

  constructor(request: string, errno: number, errnoName: string, text: string) {
    super("ERR_GUEST_REQUEST", `${request}: ${text}`);
    this.request = request;
    this.errno = errno;
    this.errnoName = errnoName;
  }
}

/** How a command of the guest ended that is taken as an error. */
export interface ExecFailure {
  /** The command's words. */
  readonly command: readonly string[];
  /** As a shell has it: 127 for a program that is not there, 126 for one that cannot be run, 128 + N for signal N. */
  readonly exitCode: number;
  /** Name of the signal that ended it, or null. */
  readonly signal: string | null;
  /** Its time was over, and it was killed. */
  readonly isTimeout?: boolean;
  /** It did not start; errno of Linux by name. */
  readonly errnoName?: string | undefined;
  /** What it had written, as far as it was kept. */
  readonly stdout?: string;
  readonly stderr?: string;
}

/** A command could not be started in the guest, took too long, or has failed where that was to be an error. */
export class ExecError extends VmmError implements ExecFailure {
  readonly command: readonly string[];
  readonly exitCode: number;
  readonly signal: string | null;
  readonly isTimeout: boolean;
  readonly errnoName: string | undefined;
  readonly stdout: string;
  readonly stderr: string;

  constructor(message: string, failure: ExecFailure, options?: { cause?: unknown; cure?: string | undefined }) {
    super("ERR_EXEC", message, options);
    this.command = failure.command;
    this.exitCode = failure.exitCode;
    this.signal = failure.signal;
    this.isTimeout = failure.isTimeout ?? false;
    this.errnoName = failure.errnoName;
    this.stdout = failure.stdout ?? "";
    this.stderr = failure.stderr ?? "";
  }
}

/** A container image or folder cannot become a guest's root: it is not there, not whole, or not what it says it is. */
export class ImageError extends VmmError {
  constructor(message: string, options?: { cause?: unknown; cure?: string | undefined }) {
    super("ERR_IMAGE", message, options);
  }
}
