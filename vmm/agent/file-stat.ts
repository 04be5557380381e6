// What a guest says of its files: struct stat of docs/agent-protocol.md, "Files".
import { AgentError } from "../errors.js";

export type FileType =
  "file" | "directory" | "symlink" | "character-device" | "block-device" | "fifo" | "socket" | "unknown";

export interface FileStat {
  readonly type: FileType;
  /** Permissions with set-id and sticky bits, 0 to 0o7777. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly nlink: number;
  /** `bytes`. */
  readonly size: number;
  readonly inode: bigint;
  readonly mtimeMs: number;
  readonly mtimeNs: bigint;
  /** Of a device node. */
  readonly major: number;
  readonly minor: number;
  /** Of 512 bytes. */
  readonly blocks: number;
}

export const STAT_BYTES = 64;
const TYPE_MASK = 0o170_000;
const MODE_MASK = 0o7777;

const TYPES: ReadonlyMap<number, FileType> = new Map([
  [0o100_000, "file"],
  [0o040_000, "directory"],
  [0o120_000, "symlink"],
  [0o020_000, "character-device"],
  [0o060_000, "block-device"],
  [0o010_000, "fifo"],
  [0o140_000, "socket"],
]);

/** st_mode's bits for the type. */
export function typeBits(type: FileType): number {
  for (const [bits, name] of TYPES) if (name === type) return bits;
  return 0;
}

/** Throws AgentError. */
export function decodeStat(payload: Buffer, what: string): FileStat {
  if (payload.length !== STAT_BYTES) {
    throw new AgentError(
      "protocol",
      `The guest's agent has sent an answer of ${String(payload.length)} bytes: ${what}`,
    );
  }
  const mode = payload.readUInt32LE(0);
  const mtimeNs = payload.readBigInt64LE(32) * 1_000_000_000n + BigInt(payload.readUInt32LE(40));
  return {
    type: TYPES.get(mode & TYPE_MASK) ?? "unknown",
    mode: mode & MODE_MASK,
    uid: payload.readUInt32LE(4),
    gid: payload.readUInt32LE(8),
    nlink: payload.readUInt32LE(12),
    size: Number(payload.readBigUInt64LE(16)),
    inode: payload.readBigUInt64LE(24),
    mtimeMs: Number(mtimeNs / 1000n) / 1000,
    mtimeNs,
    major: payload.readUInt32LE(44),
    minor: payload.readUInt32LE(48),
    blocks: Number(payload.readBigUInt64LE(56)),
  };
}
