// Feature sets: 64 bits in a bigint; constants are bit numbers. virtio 1.2 §2.2.

/** The set that holds exactly these bits. */
export function featureSet(...bits: readonly number[]): bigint {
  return bits.reduce((set, bit) => set | (1n << BigInt(bit)), 0n);
}

export function hasFeature(set: bigint, bit: number): boolean {
  return ((set >> BigInt(bit)) & 1n) !== 0n;
}
