// Structures of KVM as plain data with names, and back: what a saved state holds, and what a person can read. A
// number of 64 bits is text, "0x...", because JSON's numbers end at 2^53.
import { hex64, type StateReader } from "../../devices/state.js";

export type FieldKind = "u8" | "u16" | "u32" | "u64";

/** [name, offset, kind] of each field that is kept; names are the UAPI's. */
export type Fields = readonly (readonly [name: string, offset: number, kind: FieldKind])[];

/** Fields by name: numbers, and text for those of 64 bits. */
export type NamedFields = Record<string, number | string>;

const LIMITS: Readonly<Record<Exclude<FieldKind, "u64">, number>> = { u8: 0xff, u16: 0xffff, u32: 0xffff_ffff };

/** Every field of `offsets`, all of one kind but for those that `others` names. */
export function fieldsOf(
  offsets: Readonly<Record<string, number>>,
  kind: FieldKind,
  others: Readonly<Record<string, FieldKind>> = {},
): Fields {
  return Object.entries(offsets).map(([name, offset]) => [name, offset, others[name] ?? kind]);
}

/** The fields of the structure at `base`. */
export function readFields(structure: DataView, fields: Fields, base = 0): NamedFields {
  const named: NamedFields = {};
  for (const [name, offset, kind] of fields) named[name] = readField(structure, base + offset, kind);
  return named;
}

function readField(structure: DataView, at: number, kind: FieldKind): number | string {
  switch (kind) {
    case "u8":
      return structure.getUint8(at);
    case "u16":
      return structure.getUint16(at, true);
    case "u32":
      return structure.getUint32(at, true);
    case "u64":
      return hex64(structure.getBigUint64(at, true));
  }
}

/** Fills the structure at `base` from data that may be anybody's: all fields and no others, each within its size. */
export function writeFields(structure: DataView, fields: Fields, data: StateReader, base = 0): void {
  data.only(fields.map(([name]) => name));
  for (const [name, offset, kind] of fields) {
    const at = base + offset;
    if (kind === "u64") structure.setBigUint64(at, data.hex64(name), true);
    else {
      const value = data.integer(name, { minimum: 0, maximum: LIMITS[kind] });
      if (kind === "u8") structure.setUint8(at, value);
      else if (kind === "u16") structure.setUint16(at, value, true);
      else structure.setUint32(at, value, true);
    }
  }
}
