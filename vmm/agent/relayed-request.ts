// A client's request on its way to the agent: which frames may answer it.
import * as frames from "./frames.js";
import type { StreamRequest } from "./stream.js";

const EXEC_TERMINAL = 1;
const EXEC_NO_INPUT = 2;
const EXEC_MERGED = 4;
const EXEC_HOLD = 16;

/** Those that end without content. */
const PLAIN: ReadonlySet<number> = new Set([
  frames.STAT,
  frames.MKDIR,
  frames.REMOVE,
  frames.RENAME,
  frames.LINK,
  frames.READLINK,
  frames.SETATTR,
  frames.MKNOD,
  frames.WAIT_PORT,
  frames.IDENTITY,
  frames.NETWORK,
  frames.SYNC,
  frames.POWER_OFF,
  frames.MOUNT,
  frames.UMOUNT,
  frames.NETLINK,
]);

/** Undefined for a type that makes no request, and for what no client may ask. */
export function relayedRequest(type: number, payload: Buffer): StreamRequest | undefined {
  const request = { type, payload: Buffer.from(payload), what: "a client's request", outputs: 0 } as const;
  if (PLAIN.has(type)) return request;
  switch (type) {
    case frames.READ:
    case frames.LIST:
      return { ...request, outputs: 1 };
    case frames.WRITE:
      return { ...request, hasInput: true };
    case frames.EXEC: {
      const flags = payload.length < 4 ? 0 : payload.readUInt32LE(0);
      // A held program is for a snapshot, and that is its monitor's.
      if ((flags & EXEC_HOLD) !== 0) return undefined;
      return {
        ...request,
        isCommand: true,
        hasInput: (flags & EXEC_NO_INPUT) === 0,
        outputs: (flags & (EXEC_TERMINAL | EXEC_MERGED)) !== 0 ? 1 : 2,
      };
    }
    default:
      return undefined;
  }
}
