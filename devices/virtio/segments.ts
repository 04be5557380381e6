// An ordered list of ranges of guest RAM, all checked, in arrays that are used again for every
// chain: a request costs no allocation, and the backend gets what readv(2) wants.

export class Segments {
  /** Start of each range; 64-bit guest addresses below 2^53. */
  readonly gpas: Float64Array;
  /** `bytes` of each range, never 0. */
  readonly lengths: Uint32Array;
  count = 0;
  /** `bytes` of all ranges. */
  byteLength = 0;
  /** Another number after every change, for code that keeps something made of the list. */
  version = 0;

  constructor(capacity: number) {
    this.gpas = new Float64Array(capacity);
    this.lengths = new Uint32Array(capacity);
  }

  clear(): void {
    this.count = 0;
    this.byteLength = 0;
    this.version++;
  }

  /** The caller has checked that the range is RAM. */
  append(gpa: number, length: number): void {
    const { count } = this;
    if (count >= this.gpas.length) throw new RangeError(`More than ${String(this.gpas.length)} segments`);
    this.gpas[count] = gpa;
    this.lengths[count] = length;
    this.count = count + 1;
    this.byteLength += length;
    this.version++;
  }

  /** Forgets the first `count` ranges; what follows moves up. */
  dropFirst(count: number): void {
    for (let index = 0; index < count; index++) this.byteLength -= this.lengths[index] ?? 0;
    this.gpas.copyWithin(0, count, this.count);
    this.lengths.copyWithin(0, count, this.count);
    this.count -= count;
    this.version++;
  }
}
