// Who this process is to the kernel: /proc/self/status, and /etc for the names.
import type { FileFacts, HostFiles } from "./host-view.js";

/** linux/capability.h. */
export const CAP_DAC_OVERRIDE = 1;
export const CAP_NET_ADMIN = 12;
export const CAP_SYS_ADMIN = 21;
const SECCOMP_MODE_FILTER = 2;

export interface Identity {
  readonly uid: number;
  /** Of the user; the number where /etc/passwd has no name. */
  readonly user: string;
  /** The effective group and all others. */
  readonly groups: readonly number[];
  readonly hasSeccompFilter: boolean;
  readonly has: (capability: number) => boolean;
}

export function identity(files: HostFiles): Identity {
  const status = files.read("/proc/self/status") ?? "";
  const words = (field: string): string[] =>
    new RegExp(`^${field}:[ \\t]*(.*)$`, "m").exec(status)?.[1]?.split(/\s+/).filter(Boolean) ?? [];
  const uid = Number(words("Uid")[1] ?? 0);
  const capabilities = BigInt(`0x${words("CapEff")[0] ?? "0"}`);
  return {
    uid,
    user: nameOf(files, "/etc/passwd", uid),
    groups: [Number(words("Gid")[1] ?? 0), ...words("Groups").map(Number)],
    hasSeccompFilter: Number(words("Seccomp")[0] ?? 0) === SECCOMP_MODE_FILTER,
    has: (capability) => ((capabilities >> BigInt(capability)) & 1n) === 1n,
  };
}

/** Name of a user or group, or its number. */
export function nameOf(files: HostFiles, table: "/etc/passwd" | "/etc/group", id: number): string {
  const line = (files.read(table) ?? "").split("\n").find((entry) => entry.split(":")[2] === String(id));
  return line?.split(":")[0] ?? String(id);
}

/** Members of a group, without the users who have it as their primary group. */
export function membersOf(files: HostFiles, gid: number): readonly string[] {
  const line = (files.read("/etc/group") ?? "").split("\n").find((entry) => entry.split(":")[2] === String(gid));
  return line?.split(":")[3]?.split(",").filter(Boolean) ?? [];
}

const READ_WRITE = 0o6;

/** Whether the permission bits let the process read and write. Something else may still forbid it. */
export function modeAllows({ uid, groups, has }: Identity, { mode, ...owner }: FileFacts): boolean {
  if (has(CAP_DAC_OVERRIDE)) return true;
  const shift = uid === owner.uid ? 6 : groups.includes(owner.gid) ? 3 : 0;
  return ((mode >>> shift) & READ_WRITE) === READ_WRITE;
}
