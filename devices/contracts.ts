// The vocabulary shared by the devices and the monitor: types only, no imports.
// Devices see offsets inside their own range and an interrupt line; never an
// address, a GSI, a file descriptor of KVM or the VM that they belong to.

/** Width of one bus access in bytes; the bus splits 8-byte accesses, low half first. */
export type AccessSize = 1 | 2 | 4;

/** A register file on the port or the MMIO bus. */
export interface BusDevice {
  /** Short instance name for traces and errors, such as "serial0". */
  readonly name: string;
  /** Unsigned value of the register at `offset`; unknown registers read 0. */
  read(offset: number, size: AccessSize): number;
  /** Stores the unsigned `value`; unknown registers ignore it. */
  write(offset: number, size: AccessSize, value: number): void;
}

/** One edge-triggered interrupt input of the machine; the device never learns its GSI. */
export interface InterruptLine {
  trigger(): void;
}

/**
 * Registers of a device that several threads serve: every vCPU thread builds its own
 * device object over the same words, so an exit is answered where it happens.
 */
export type SharedWords = Int32Array<SharedArrayBuffer>;

/** Guest RAM. Every call checks bounds and throws GuestMemoryError outside RAM. */
export interface GuestMemory {
  /** RAM size in bytes. */
  readonly size: number;
  /** True if all `length` bytes from `gpa` are RAM. */
  contains(gpa: number, length: number): boolean;
  /** A window without copy; the guest may change it at any time, so read each byte once. */
  slice(gpa: number, length: number): Uint8Array;
  readU8(gpa: number): number;
  readU16(gpa: number): number;
  readU32(gpa: number): number;
  readU64(gpa: number): bigint;
  /** 16 bytes at once, as four numbers of 32 bits: a descriptor of a queue. */
  read4U32(gpa: number, into: Uint32Array): void;
  writeU8(gpa: number, value: number): void;
  writeU16(gpa: number, value: number): void;
  writeU32(gpa: number, value: number): void;
  writeU64(gpa: number, value: bigint): void;
  /**
   * Ring indices and flags, at an even `gpa`: sequentially consistent, so what the other side wrote
   * before its own store is seen after the load, and what we wrote before the store is seen there.
   */
  loadU16(gpa: number): number;
  storeU16(gpa: number, value: number): void;
  /** Sets bits of an aligned half word atomically, against the guest's own processors. */
  orU16(gpa: number, bits: number): void;
  /** Somebody follows which pages change: what is written is told to `noteWritten`, afterwards. */
  readonly isWatched?: boolean;
  noteWritten?(gpa: number, length: number): void;
}
