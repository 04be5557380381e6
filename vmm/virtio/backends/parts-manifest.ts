// The list of a disk's parts: { "parts": [{ "path": "data", "bytes": 8192 }, …] }. Paths are absolute or relative to the
// list. Each part but the last is whole pages long, so that no block of a file system lies in two.
import { dirname, isAbsolute, join } from "node:path";
import { DiskError } from "../../errors.js";

/** A file of the disk, with an absolute path if that of the list is one. */
export interface DiskPart {
  readonly path: string;
  readonly bytes: number;
}

export const MAX_MANIFEST_BYTES = 256 * 1024;
/** Each holds a descriptor for as long as the disk is there. */
export const MAX_PARTS = 256;
/** `bytes` */
export const PART_ALIGNMENT = 4096;
const MAX_PATH_LENGTH = 4095;

/** `bytes`: the start of the file, which has `size`. Throws DiskError with the first thing that is wrong. */
export function readPartsManifest(list: string, size: number, bytes: Uint8Array): DiskPart[] {
  const refuse = (problem: string): never => {
    throw new DiskError(`${list}: no list of a disk's parts: ${problem}`);
  };
  if (size > MAX_MANIFEST_BYTES) refuse(`${String(size)} bytes are more than ${String(MAX_MANIFEST_BYTES)}`);
  const parts = fieldsOf(parse(bytes, refuse), ["parts"], refuse)["parts"];
  if (!Array.isArray(parts)) return refuse("parts is not a list");
  if (parts.length === 0 || parts.length > MAX_PARTS) {
    return refuse(`${String(parts.length)} parts; there may be 1 to ${String(MAX_PARTS)}`);
  }
  const found = parts.map((part: unknown, index): DiskPart => {
    const refusePart = (problem: string): never => refuse(`part ${String(index + 1)}: ${problem}`);
    const { path, bytes: length } = fieldsOf(part, ["path", "bytes"], refusePart);
    if (typeof path !== "string" || path === "" || path.length > MAX_PATH_LENGTH || path.includes("\0")) {
      return refusePart("path is not a path");
    }
    if (typeof length !== "number" || !Number.isSafeInteger(length) || length < 1) {
      return refusePart(`bytes ${shown(length)} is not a whole number from 1 to ${String(Number.MAX_SAFE_INTEGER)}`);
    }
    if (index < parts.length - 1 && length % PART_ALIGNMENT !== 0) {
      return refusePart(
        `bytes ${String(length)} is not a multiple of ${String(PART_ALIGNMENT)}, and it is not the last`,
      );
    }
    return { path: isAbsolute(path) ? path : join(dirname(list), path), bytes: length };
  });
  const total = found.reduce((sum, part) => sum + part.bytes, 0);
  if (total > Number.MAX_SAFE_INTEGER - PART_ALIGNMENT) refuse("all parts together are too long for a disk");
  return found;
}

function parse(bytes: Uint8Array, refuse: (problem: string) => never): unknown {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes)) as unknown;
  } catch {
    return refuse("not JSON");
  }
}

function fieldsOf(
  value: unknown,
  names: readonly string[],
  refuse: (problem: string) => never,
): Readonly<Record<string, unknown>> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return refuse("not an object");
  for (const name of Object.keys(value)) if (!names.includes(name)) refuse(`unknown field ${shown(name)}`);
  for (const name of names) if (!Object.hasOwn(value, name)) refuse(`no ${name} is given`);
  return value as Readonly<Record<string, unknown>>;
}

function shown(value: unknown): string {
  return JSON.stringify(value).slice(0, 40);
}
