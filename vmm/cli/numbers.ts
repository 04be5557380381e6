// Numbers as people write them: decimal digits and nothing else, no sign, no exponent, no blanks, and
// none that is only roughly what was written.

/** Binary units, as in QEMU and Docker; MB and MiB mean the same. */
const UNITS: Readonly<Record<string, number>> = { k: 2 ** 10, m: 2 ** 20, g: 2 ** 30, t: 2 ** 40 };

/** Undefined if it is not a whole number, or too large to be exact. */
export function parseWhole(text: string): number | undefined {
  const value = /^[0-9]+$/.test(text) ? Number(text) : NaN;
  return Number.isSafeInteger(value) ? value : undefined;
}

/**
 * A size as `bytes`: 1.5G, 512MiB, 64k; without a unit it is one of `unit` bytes. Undefined for what is none,
 * or not whole.
 */
export function parseBytes(text: string, unit: number): number | undefined {
  const match = /^([0-9]+(?:\.[0-9]+)?)(?: ?([kmgt])(?:i?b)?)?$/i.exec(text);
  const value = Number(match?.[1]) * (UNITS[match?.[2]?.toLowerCase() ?? ""] ?? unit);
  return Number.isSafeInteger(value) ? value : undefined;
}
