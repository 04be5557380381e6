export const MAC_ADDRESS_BYTES = 6;

/** The 6 bytes of an address such as "52:54:00:12:34:56"; undefined if it is none that an interface may have. */
export function parseMacAddress(text: string): Uint8Array | undefined {
  if (!/^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/i.test(text)) return undefined;
  const bytes = Uint8Array.from(text.split(":"), (part) => parseInt(part, 16));
  return isUsableMac(bytes) ? bytes : undefined;
}

/** Bit 0 of the first byte marks a group; an interface needs an address of its own that is not all zeroes. */
export function isUsableMac(bytes: Uint8Array): boolean {
  const isGroup = ((bytes[0] ?? 0) & 1) !== 0;
  return !isGroup && bytes.some((byte) => byte !== 0);
}
