// The state file of a snapshot: a line that says what follows, then JSON. The line has the format's version, and
// length and checksum of the rest, so that a file that was cut or changed is found before anything in it is used.
//   {"format":"vmlet snapshot","version":1,"bytes":31245,"sha256":"..."}
//   {"id":"...", ...}
import { StateError, StateReader, type State } from "../../devices/state.js";
import { ConfigError, SnapshotError } from "../errors.js";
import { sha256 } from "../sys/sha256.js";

export const STATE_FORMAT = "vmlet snapshot";
/** What every state file begins with. */
export const STATE_FILE_BEGIN = `{"format":"${STATE_FORMAT}",`;
/** Counts up when a file can no longer be read by the program before. */
export const STATE_VERSION = 2;
/** More than any guest needs; a file that claims more is not read. `bytes`. */
export const MAX_STATE_BYTES = 64 * 2 ** 20;
const MAX_HEAD_BYTES = 256;

export function encodeState(state: State): Buffer {
  const body = Buffer.from(`${JSON.stringify(state, undefined, 1)}\n`);
  const head = { format: STATE_FORMAT, version: STATE_VERSION, bytes: body.length, sha256: sha256(body) };
  return Buffer.concat([Buffer.from(`${JSON.stringify(head)}\n`), body]);
}

/** A reader of what the file says. Throws SnapshotError, with the reason, for a file that is not whole and ours. */
export function decodeState(file: Uint8Array, path: string): StateReader {
  const bytes = Buffer.from(file.buffer, file.byteOffset, file.length);
  const lineEnd = bytes.subarray(0, MAX_HEAD_BYTES).indexOf("\n");
  const head = lineEnd < 0 ? undefined : parse(bytes.subarray(0, lineEnd));
  if (!isHead(head)) throw new SnapshotError(`${path} is not the state file of a snapshot`);
  if (head.version !== STATE_VERSION) {
    throw new SnapshotError(
      `${path} has version ${String(head.version)}; this program reads version ${String(STATE_VERSION)}`,
      { cure: "restore it with the version of vmlet that made it" },
    );
  }
  const body = bytes.subarray(lineEnd + 1);
  if (body.length !== head.bytes) {
    throw new SnapshotError(`${path} is cut: ${String(body.length)} of ${String(head.bytes)} bytes are there`);
  }
  if (sha256(body) !== head.sha256) throw new SnapshotError(`${path} is damaged: its checksum is another`);
  return new StateReader(parse(body), "state");
}

/** Has every error about what is saved name the file: StateError, and ConfigError for its configuration. */
export function readingState<Result>(path: string, read: () => Result): Result {
  try {
    return read();
  } catch (error) {
    if (error instanceof ConfigError) {
      throw new SnapshotError(`${path}: state.config: ${error.problems.join("; ")}`, { cause: error });
    }
    if (!(error instanceof StateError)) throw error;
    throw new SnapshotError(`${path}: ${error.message}`, { cause: error });
  }
}

interface Head {
  readonly version: number;
  readonly bytes: number;
  readonly sha256: string;
}

function isHead(value: unknown): value is Head {
  if (typeof value !== "object" || value === null) return false;
  const { format, version, bytes, sha256: sum } = value as Record<string, unknown>;
  return format === STATE_FORMAT && Number.isInteger(version) && Number.isInteger(bytes) && typeof sum === "string";
}

function parse(bytes: Buffer): unknown {
  try {
    return JSON.parse(bytes.toString("utf8"));
  } catch {
    return undefined;
  }
}
