// Records of an extended header: "LENGTH KEY=VALUE\n", the value any bytes. POSIX.1-2017 pax, "pax Extended Header".
import { ImageError } from "../../errors.js";
import type { Xattr } from "../tree.js";

/** Keys and values, latin1. An empty value takes back what stood for all entries. */
export function parsePax(body: Buffer): Map<string, string> {
  const records = new Map<string, string>();
  for (let at = 0; at < body.length;) {
    // Some writers fill up with zeroes.
    if (body[at] === 0) break;
    const space = body.indexOf(0x20, at);
    const digits = space < 0 ? "" : body.toString("latin1", at, Math.min(space, at + 12));
    const length = /^[1-9]\d{0,9}$/.test(digits) ? Number(digits) : 0;
    const end = at + length;
    if (space < 0 || end > body.length || end <= space + 1 || body[end - 1] !== 0x0a) throw damaged();
    const equals = body.indexOf(0x3d, space + 1);
    if (equals < 0 || equals >= end - 1) throw damaged();
    records.set(body.toString("latin1", space + 1, equals), body.toString("latin1", equals + 1, end - 1));
    at = end;
  }
  return records;
}

function damaged(): ImageError {
  return new ImageError("A tar archive's extended header is damaged");
}

const SCHILY = "SCHILY.xattr.";
const LIBARCHIVE = "LIBARCHIVE.xattr.";

/** Extended attributes: star's records have names and values as they are, libarchive's are encoded. The first counts if both are there. */
export function paxXattrs(records: ReadonlyMap<string, string>): Xattr[] {
  const xattrs = new Map<string, string>();
  for (const [key, value] of records) {
    if (key.startsWith(LIBARCHIVE)) {
      const name = key
        .slice(LIBARCHIVE.length)
        .replace(/%([0-9a-fA-F]{2})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 16)));
      xattrs.set(name, Buffer.from(value, "base64").toString("latin1"));
    }
  }
  for (const [key, value] of records) if (key.startsWith(SCHILY)) xattrs.set(key.slice(SCHILY.length), value);
  return [...xattrs].filter(([name]) => name !== "" && !name.includes("\0"));
}

/** Seconds and nanoseconds since 1970 of "1700000000.25"; undefined for what is no time. */
export function paxTime(text: string): { readonly mtime: number; readonly mtimeNs: number } | undefined {
  const [, sign = "", whole = "", part = ""] = /^(-?)(\d{1,15})(?:\.(\d*))?$/.exec(text) ?? [];
  if (whole === "") return undefined;
  const ns = Number(part.slice(0, 9).padEnd(9, "0"));
  if (sign === "") return { mtime: Number(whole), mtimeNs: ns };
  return ns === 0 ? { mtime: 0 - Number(whole), mtimeNs: 0 } : { mtime: -Number(whole) - 1, mtimeNs: 1e9 - ns };
}

/** A whole number from 0 on; throws ImageError. */
export function paxNumber(records: ReadonlyMap<string, string>, key: string): number | undefined {
  const text = records.get(key);
  if (text === undefined || text === "") return undefined;
  if (!/^\d{1,16}$/.test(text) || !Number.isSafeInteger(Number(text))) {
    throw new ImageError(`A tar archive's ${key} is not a number that can be`);
  }
  return Number(text);
}
