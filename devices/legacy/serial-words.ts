// Where the registers of serial.ts lie in the words that all threads share.

export const LOCK = 0;
export const IER = 1;
export const LCR = 2;
export const MCR = 3;
export const FCR = 4;
export const SCR = 5;
export const DLL = 6;
export const DLM = 7;
/** 1: the transmitter has become empty since the guest last looked. */
export const THRE_PENDING = 8;
/** Level of the interrupt pin. */
export const PIN = 9;
export const RX_HEAD = 10;
export const RX_TAIL = 11;
/** 1: input was refused; say so when there is room. */
export const RX_REFUSED = 12;
/** Not 0: the receiver seems empty, until its interrupt is enabled or a driver polls; looks left. */
export const RX_HIDDEN = 13;
export const RX = 14;
/** Deeper than the 16 of the chip, which the guest cannot tell: fewer wake-ups per pasted line. */
export const RX_CAPACITY = 256;

export const SERIAL_WORDS = RX + RX_CAPACITY;

/** Reads of LSR and nothing else, in a row: a driver without interrupts waits for input. */
export const POLLING_READS = 64;

/** A queue entry that is a break instead of a byte. */
export const BREAK = 0x100;

/** Bits that these registers have. */
export const IER_BITS = 0x0f;
export const MCR_BITS = 0x1f;
