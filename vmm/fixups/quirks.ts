// What a KVM leaves to its monitor; a KVM with hardware virtualization behind it leaves nothing.
import { FIXUP_NAMES, type FixupName } from "./fixup.js";
import type { XsaveComponent } from "./xsave.js";

/** What the probe has found, as the threads of a VM need it. */
export interface Quirks {
  /** Instructions that end in an emulation failure in kernel code. */
  readonly missing: readonly FixupName[];
  /** SYSCALL does not change the privilege level. */
  readonly syscallStaysInUserMode: boolean;
  /** Rate of the guest's time-stamp counter, 0 if KVM does not tell: its kernel need not measure it. */
  readonly tscKhz: number;
  readonly xsaveComponents: readonly XsaveComponent[];
}

/** `bytes` of an XSAVE area as KVM_GET_XSAVE2 has it at most: AMX included. */
const MAX_XSAVE_BYTES = 65_536;

/** Whether words that were kept somewhere are what the probe finds. */
export function isQuirks(value: unknown): value is Quirks {
  if (!isRecord(value)) return false;
  const { missing, syscallStaysInUserMode, tscKhz, xsaveComponents } = value;
  return (
    Array.isArray(missing) &&
    missing.every((name) => FIXUP_NAMES.some((known) => known === name)) &&
    typeof syscallStaysInUserMode === "boolean" &&
    isCount(tscKhz, 2 ** 31) &&
    Array.isArray(xsaveComponents) &&
    xsaveComponents.every(isComponent)
  );
}

function isComponent(value: unknown): boolean {
  if (!isRecord(value)) return false;
  const { index, offset, size } = value;
  return isCount(index, 63) && isCount(offset, MAX_XSAVE_BYTES) && isCount(size, MAX_XSAVE_BYTES - offset);
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isCount(value: unknown, most: number): value is number {
  return Number.isInteger(value) && (value as number) >= 0 && (value as number) <= most;
}
