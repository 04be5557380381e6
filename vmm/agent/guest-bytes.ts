// What a caller gives as a string or as bytes, and what a guest gives as bytes: names, arguments, variables.
import { isUtf8 } from "node:buffer";
import { withoutControls } from "../config/show.js";
import { ConfigError } from "../errors.js";

/** Names in a guest are bytes. A string stands for its UTF-8. */
export type GuestBytes = string | Uint8Array;

/** Of a path, as Linux has it, its NUL included. */
const MAX_PATH = 4096;

export function bytesOf(value: GuestBytes): Buffer {
  return typeof value === "string" ? Buffer.from(value) : Buffer.from(value.buffer, value.byteOffset, value.length);
}

/** For messages, and for what comes from a guest and goes to a terminal. */
export function shown(value: GuestBytes): string {
  return withoutControls(typeof value === "string" ? value : bytesOf(value).toString("utf8"));
}

/** The string, if the bytes are UTF-8; with replacement characters otherwise. */
export function textOf(bytes: Uint8Array): { readonly text: string; readonly isExact: boolean } {
  return { text: bytesOf(bytes).toString("utf8"), isExact: isUtf8(bytes) };
}

/** What is wrong with a path of the guest, or undefined. */
export function pathProblem(path: GuestBytes): string | undefined {
  const bytes = bytesOf(path);
  if (bytes.length === 0) return "The path is empty";
  if (bytes[0] !== SLASH) return `${shown(path)}: a path of the guest is absolute`;
  if (bytes.includes(0)) return `${shown(path)}: a path has no NUL`;
  if (bytes.length >= MAX_PATH) return `A path has ${String(bytes.length)} bytes, the limit is ${String(MAX_PATH - 1)}`;
  return undefined;
}

/** The bytes of an absolute path; throws ConfigError. */
export function pathBytes(path: GuestBytes): Buffer {
  const problem = pathProblem(path);
  if (problem !== undefined) throw new ConfigError([problem]);
  return bytesOf(path);
}

/** The bytes, then NUL. */
export function withNul(value: GuestBytes): Buffer {
  return Buffer.concat([bytesOf(value), NUL]);
}

export const SLASH = 0x2f;
const NUL = Buffer.alloc(1);
