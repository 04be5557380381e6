// A connection that the host refuses: passt before 2023-09 answers the guest's SYN with a RST that has the
// right acknowledgment number and not the ACK flag. RFC 9293 §3.10.7.3: in SYN-SENT such a segment is dropped,
// and the guest would go on trying for two minutes. The flag is set here, and the checksum follows.
import type { GuestMemory } from "../../../devices/contracts.js";
import { VIRTIO_NET_HDR_SIZE } from "../../../devices/virtio/net/constants.js";
import type { Segments } from "../../../devices/virtio/segments.js";

const ETHERTYPE = 12;
const ETHERTYPE_IPV4 = 0x0800;
const IP_VERSION = 14;
/** Version 4, a header of five words: passt sends no options. */
const IPV4_PLAIN = 0x45;
const IP_PROTOCOL = 23;
const IP_PROTOCOL_TCP = 6;
const TCP = 34;
const TCP_ACKNOWLEDGMENT = TCP + 8;
const TCP_FLAGS = TCP + 13;
const TCP_CHECKSUM = TCP + 16;
const TCP_END = TCP + 20;
const RST = 0x04;
const ACK = 0x10;
/** With all options that a TCP header may have; longer frames carry data. */
const MAX_LENGTH = TCP + 60;

export type ByteMemory = Pick<GuestMemory, "readU8" | "writeU8">;

/** Sets ACK on a bare RST; `frame` begins with the driver's header, `length` is that of the frame behind it. */
export function acknowledgeReset(memory: ByteMemory, frame: Segments, length: number): void {
  if (length < TCP_END || length > MAX_LENGTH) return;
  const at = (offset: number): number => gpaOf(frame, VIRTIO_NET_HDR_SIZE + offset);
  // A frame that the buffers are too short for is dropped anyway.
  if (at(TCP_END - 1) < 0) return;
  const read8 = (offset: number): number => memory.readU8(at(offset));
  const read16 = (offset: number): number => read8(offset) * 256 + read8(offset + 1);
  if (read8(TCP_FLAGS) !== RST || read16(ETHERTYPE) !== ETHERTYPE_IPV4) return;
  if (read8(IP_VERSION) !== IPV4_PLAIN || read8(IP_PROTOCOL) !== IP_PROTOCOL_TCP) return;
  // Without a number to acknowledge, the flag would be a lie.
  if (read16(TCP_ACKNOWLEDGMENT) === 0 && read16(TCP_ACKNOWLEDGMENT + 2) === 0) return;
  // RFC 1624: HC' = ~(~HC + ~m + m'); the word that holds the flags grows by ACK.
  let sum = (~read16(TCP_CHECKSUM) & 0xffff) + ACK;
  sum = (sum & 0xffff) + (sum >> 16);
  const checksum = ~sum & 0xffff;
  memory.writeU8(at(TCP_FLAGS), RST | ACK);
  memory.writeU8(at(TCP_CHECKSUM), checksum >> 8);
  memory.writeU8(at(TCP_CHECKSUM + 1), checksum & 0xff);
}

/** Guest-physical address of byte `offset`; -1 beyond the buffers. */
function gpaOf({ gpas, lengths, count }: Segments, offset: number): number {
  let left = offset;
  for (let index = 0; index < count; index++) {
    const length = lengths[index] ?? 0;
    if (left < length) return (gpas[index] ?? 0) + left;
    left -= length;
  }
  return -1;
}
