// Bytes that MP and ACPI tables are made of.

/** The byte that makes all bytes add up to 0 modulo 256; its own place must hold 0. */
export function checksum(bytes: Uint8Array): number {
  let sum = 0;
  for (const byte of bytes) sum = (sum + byte) & 0xff;
  return (0x100 - sum) & 0xff;
}

/** Copies ASCII text to `at`, without a terminator. */
export function putAscii(bytes: Uint8Array, at: number, text: string): void {
  for (let i = 0; i < text.length; i++) bytes[at + i] = text.charCodeAt(i);
}
