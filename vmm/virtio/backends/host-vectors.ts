// Ranges of guest memory as the host's system calls want them.
import type { Segments } from "../../../devices/virtio/segments.js";
import { IOV_MAX, type IoVectors } from "../../sys/files.js";

/** Where guest memory lies in this process. */
export interface HostAddresses {
  /** Host address of `length` bytes at `gpa`; throws if they are not guest RAM. */
  hostAddressOf(gpa: number, length: number): number;
}

/** Makes `vectors` the host ranges of `data` from its byte `from` on, as many as go into one call. */
export function gatherVectors(vectors: IoVectors, memory: HostAddresses, data: Segments, from: number): void {
  vectors.clear();
  appendVectors(vectors, memory, data, from, data.byteLength);
}

/** Adds the host ranges of `data` from its byte `from` on, at most `most` bytes; returns how many bytes. */
export function appendVectors(
  vectors: IoVectors,
  memory: HostAddresses,
  data: Segments,
  from: number,
  most: number,
): number {
  const { gpas, lengths, count } = data;
  let skip = from;
  let left = most;
  for (let index = 0; index < count && left > 0 && vectors.count < IOV_MAX; index++) {
    const length = lengths[index] ?? 0;
    if (skip >= length) {
      skip -= length;
      continue;
    }
    const piece = Math.min(length - skip, left);
    // SAFETY: hostAddressOf has checked that all bytes are guest RAM, which outlives the devices.
    vectors.append(memory.hostAddressOf((gpas[index] ?? 0) + skip, piece), piece);
    left -= piece;
    skip = 0;
  }
  return most - left;
}
