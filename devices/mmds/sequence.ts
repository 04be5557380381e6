// Sequence numbers of TCP: 32 bits that wrap. RFC 9293 §3.4.

export function advanced(sequence: number, by: number): number {
  return (sequence + by) >>> 0;
}

/** How far `to` lies behind `from`; negative if it lies before it. */
export function distance(from: number, to: number): number {
  return (to - from) | 0;
}
