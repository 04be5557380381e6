// Just enough AML to describe a micro-VM's devices: each function returns encoded bytes.
// ACPI 6.4 chapter 20 (AML specification), §6.4 (resource descriptors).

export type Aml = readonly number[];

const ZERO_OP = 0x00;
const ONE_OP = 0x01;
const NAME_OP = 0x08;
const BYTE_PREFIX = 0x0a;
const WORD_PREFIX = 0x0b;
const DWORD_PREFIX = 0x0c;
const STRING_PREFIX = 0x0d;
const SCOPE_OP = 0x10;
const BUFFER_OP = 0x11;
const PACKAGE_OP = 0x12;
const METHOD_OP = 0x14;
const DUAL_NAME_PREFIX = 0x2e;
const NOTIFY_OP = 0x86;
const EXT_OP_PREFIX = 0x5b;
const DEVICE_OP = 0x82;
const ROOT_CHAR = 0x5c;

function bytesOf(value: number, count: number): number[] {
  return Array.from({ length: count }, (_, i) => Math.floor(value / 2 ** (8 * i)) & 0xff);
}

/** §20.2.4: the length counts its own bytes. */
function withLength(body: Aml): number[] {
  if (body.length + 1 < 0x40) return [body.length + 1, ...body];
  const length = body.length + 2;
  if (length >= 0x1000) throw new RangeError(`An AML package of ${String(length)} bytes is over the 4095 handled here`);
  return [0x40 | (length & 0xf), length >> 4, ...body];
}

/** One or two NameSegs, between them a dot, of four characters, padded with underscores; a leading backslash is kept. */
function nameString(name: string): number[] {
  const root = name.startsWith("\\");
  const segments = (root ? name.slice(1) : name).split(".").map((segment) => segment.padEnd(4, "_"));
  return [
    ...(root ? [ROOT_CHAR] : []),
    ...(segments.length > 1 ? [DUAL_NAME_PREFIX] : []),
    ...Buffer.from(segments.join(""), "latin1"),
  ];
}

export function integer(value: number): number[] {
  if (value === 0) return [ZERO_OP];
  if (value === 1) return [ONE_OP];
  if (value <= 0xff) return [BYTE_PREFIX, value];
  if (value <= 0xffff) return [WORD_PREFIX, ...bytesOf(value, 2)];
  return [DWORD_PREFIX, ...bytesOf(value, 4)];
}

export function text(value: string): number[] {
  return [STRING_PREFIX, ...Buffer.from(value, "latin1"), 0];
}

/** §6.1.5: "PNP0501" compressed to 32 bits. */
export function eisaId(id: string): number[] {
  const letter = (i: number): number => id.charCodeAt(i) - 0x40;
  const vendor = (letter(0) << 10) | (letter(1) << 5) | letter(2);
  const product = Number.parseInt(id.slice(3), 16);
  return [DWORD_PREFIX, vendor >> 8, vendor & 0xff, product >> 8, product & 0xff];
}

export function named(name: string, value: Aml): number[] {
  return [NAME_OP, ...nameString(name), ...value];
}

export function pack(...elements: Aml[]): number[] {
  return [PACKAGE_OP, ...withLength([elements.length, ...elements.flat()])];
}

export function scope(name: string, ...body: Aml[]): number[] {
  return [SCOPE_OP, ...withLength([...nameString(name), ...body.flat()])];
}

export function device(name: string, ...body: Aml[]): number[] {
  return [EXT_OP_PREFIX, DEVICE_OP, ...withLength([...nameString(name), ...body.flat()])];
}

/** A method without arguments. */
export function method(name: string, ...body: Aml[]): number[] {
  return [METHOD_OP, ...withLength([...nameString(name), 0, ...body.flat()])];
}

/** Tells the driver of the device that something has happened. §19.6.95 */
export function notify(deviceName: string, value: number): number[] {
  return [NOTIFY_OP, ...nameString(deviceName), ...integer(value)];
}

/** A resource template: descriptors, then the end tag with an unused checksum. */
export function resources(...descriptors: Aml[]): number[] {
  const body = [...descriptors.flat(), 0x79, 0];
  return [BUFFER_OP, ...withLength([...integer(body.length), ...body])];
}

/** §6.4.2.5 I/O port descriptor, 16-bit decode. */
export function ioPorts(port: number, length: number): number[] {
  return [0x47, 1, ...bytesOf(port, 2), ...bytesOf(port, 2), 1, length];
}

/** §6.4.2.1 IRQ descriptor without flags: edge-triggered, active high, exclusive. */
export function isaIrq(irq: number): number[] {
  return [0x22, ...bytesOf(1 << irq, 2)];
}

/** §6.4.3.4 fixed 32-bit memory range, read-write. */
export function memory32(base: number, length: number): number[] {
  return [0x86, 9, 0, 1, ...bytesOf(base, 4), ...bytesOf(length, 4)];
}

const ADDRESS_DECODED_FIXED = 0b1100;
const MEMORY_READ_WRITE = 1;
const BUS_NUMBERS = 2;

/** §6.4.3.5 address space descriptor of 32 or 64 bits: memory that a bridge hands on. */
export function addressSpace(base: number, length: number, width: 4 | 8): number[] {
  const words = [0, base, base + length - 1, 0, length].flatMap((value) => bytesOf(value, width));
  const tag = width === 4 ? 0x87 : 0x8a;
  return [tag, ...bytesOf(3 + words.length, 2), 0, ADDRESS_DECODED_FIXED, MEMORY_READ_WRITE, ...words];
}

/** §6.4.3.5.3 address space descriptor of 16 bits: the buses behind a bridge. */
export function busNumbers(first: number, last: number): number[] {
  const words = [0, first, last, 0, last - first + 1].flatMap((value) => bytesOf(value, 2));
  return [0x88, ...bytesOf(3 + words.length, 2), BUS_NUMBERS, ADDRESS_DECODED_FIXED, 0, ...words];
}

/** §6.4.3.6 extended interrupt descriptor: consumer, edge-triggered, active high, exclusive. */
export function interrupt(gsi: number): number[] {
  return [0x89, 6, 0, 0b0011, 1, ...bytesOf(gsi, 4)];
}
