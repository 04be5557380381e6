// An exception that the guest's instruction raises, found while a fix-up does the instruction.

export const DE_VECTOR = 0;
export const BP_VECTOR = 3;
export const UD_VECTOR = 6;
export const NM_VECTOR = 7;
export const GP_VECTOR = 13;
export const PF_VECTOR = 14;
export const MF_VECTOR = 16;

/** Thrown inside the fix-ups, caught where they are applied, and injected into the guest. */
export class GuestFault extends Error {
  readonly vector: number;
  /** Undefined for exceptions without one. */
  readonly errorCode: number | undefined;
  /** CR2 of a page fault. */
  readonly address: bigint | undefined;

  constructor(vector: number, errorCode?: number, address?: bigint) {
    super(`Guest exception ${String(vector)}`);
    this.vector = vector;
    this.errorCode = errorCode;
    this.address = address;
  }
}
