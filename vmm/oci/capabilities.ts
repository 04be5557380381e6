// Names of capabilities, and their sets as the agent takes them. capabilities(7), linux/capability.h.
import type { Capabilities } from "../agent/container-request.js";
import type { OciCapabilities } from "./runtime-spec.js";

/** In the order of their numbers. */
export const CAPABILITIES = [
  ...["CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP"],
  ...["LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER"],
  ...["SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE"],
  ...["SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP"],
  ...["MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF"],
  "CHECKPOINT_RESTORE",
].map((name) => `CAP_${name}`);

/** Undefined for what is none. */
export function capabilityBit(name: string): bigint | undefined {
  const index = CAPABILITIES.indexOf(name.toUpperCase());
  return index < 0 ? undefined : 1n << BigInt(index);
}

function bits(names: readonly string[] = []): bigint {
  return names.reduce((set, name) => set | (capabilityBit(name) ?? 0n), 0n);
}

export function capabilitySets(given: OciCapabilities): Capabilities {
  return {
    bounding: bits(given.bounding),
    effective: bits(given.effective),
    permitted: bits(given.permitted),
    inheritable: bits(given.inheritable),
    ambient: bits(given.ambient),
  };
}
