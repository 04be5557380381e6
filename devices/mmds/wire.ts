// The headers of the frames that the metadata service takes and sends: Ethernet II, ARP (RFC 826), IPv4 (RFC 791),
// TCP (RFC 9293). A frame comes from the guest over its own device: its checksums say nothing, and are not looked at.

export const ETHERNET_BYTES = 14;
export const ARP_BYTES = 28;
const IPV4_BYTES = 20;
const TCP_BYTES = 20;
const MSS_OPTION_BYTES = 4;
/** `bytes` before a segment's payload in a frame of ours that has no options. */
export const HEADERS_BYTES = ETHERNET_BYTES + IPV4_BYTES + TCP_BYTES;

export const ETHERTYPE_IPV4 = 0x0800;
export const ETHERTYPE_ARP = 0x0806;
const ARP_ETHERNET = 1;
const ARP_REQUEST = 1;
const ARP_REPLY = 2;
const PROTOCOL_TCP = 6;
const DONT_FRAGMENT = 0x4000;
/** MF and the offset: either makes a fragment. */
const FRAGMENT_MASK = 0x3fff;
const TIME_TO_LIVE = 64;
const OPTION_END = 0;
const OPTION_NOTHING = 1;
const OPTION_MSS = 2;

export const FIN = 1;
export const SYN = 2;
export const RST = 4;
export const PSH = 8;
export const ACK = 16;

/** Whoever is at the other end: addresses of the link and of the network, and a port. */
export interface Peer {
  readonly mac: Uint8Array;
  readonly address: number;
  readonly port: number;
}

export interface Segment {
  readonly sequence: number;
  readonly acknowledgement: number;
  readonly flags: number;
  readonly window: number;
  /** The option of a SYN; undefined without one. */
  readonly mss?: number | undefined;
  readonly payload: Uint8Array;
}

const NOTHING = new Uint8Array(0);

function u16(bytes: Uint8Array, at: number): number {
  return ((bytes[at] ?? 0) << 8) | (bytes[at + 1] ?? 0);
}

function u32(bytes: Uint8Array, at: number): number {
  return u16(bytes, at) * 2 ** 16 + u16(bytes, at + 2);
}

function put16(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >>> 8;
  bytes[at + 1] = value;
}

function put32(bytes: Uint8Array, at: number, value: number): void {
  put16(bytes, at, value >>> 16);
  put16(bytes, at + 2, value & 0xffff);
}

export function etherTypeOf(frame: Uint8Array): number {
  return frame.length < ETHERNET_BYTES ? 0 : u16(frame, 12);
}

/** Whether an ARP packet asks for, or speaks of, that address. */
export function isArpFor(frame: Uint8Array, address: number): boolean {
  return frame.length >= ETHERNET_BYTES + ARP_BYTES && u32(frame, ETHERNET_BYTES + 24) === address;
}

/** Whether an IPv4 packet is for that address. */
export function isIpv4For(frame: Uint8Array, address: number): boolean {
  return frame.length >= ETHERNET_BYTES + IPV4_BYTES && u32(frame, ETHERNET_BYTES + 16) === address;
}

/** Who asks for an address by ARP; undefined if nobody does. */
export function readArpRequest(frame: Uint8Array): Omit<Peer, "port"> | undefined {
  const at = ETHERNET_BYTES;
  const isRequest =
    frame.length >= at + ARP_BYTES &&
    u16(frame, at) === ARP_ETHERNET &&
    u16(frame, at + 2) === ETHERTYPE_IPV4 &&
    u16(frame, at + 4) === 0x0604 &&
    u16(frame, at + 6) === ARP_REQUEST;
  return isRequest ? { mac: frame.slice(at + 8, at + 14), address: u32(frame, at + 14) } : undefined;
}

/** Who says that `own` has the address; returns the frame's length. */
export function writeArpReply(frame: Uint8Array, own: Omit<Peer, "port">, to: Omit<Peer, "port">): number {
  writeEthernet(frame, own.mac, to.mac, ETHERTYPE_ARP);
  const at = ETHERNET_BYTES;
  put16(frame, at, ARP_ETHERNET);
  put16(frame, at + 2, ETHERTYPE_IPV4);
  put16(frame, at + 4, 0x0604);
  put16(frame, at + 6, ARP_REPLY);
  frame.set(own.mac, at + 8);
  put32(frame, at + 14, own.address);
  frame.set(to.mac, at + 18);
  put32(frame, at + 24, to.address);
  return at + ARP_BYTES;
}

/** The segment in an IPv4 frame, its payload cut at the end of what is there; undefined for anything else, and for fragments. */
export function readSegment(frame: Uint8Array): { from: Peer; port: number; segment: Segment } | undefined {
  const ip = ETHERNET_BYTES;
  if (frame.length < ip + IPV4_BYTES || (frame[ip] ?? 0) >> 4 !== 4) return undefined;
  const ipBytes = ((frame[ip] ?? 0) & 15) * 4;
  const end = Math.min(frame.length, ip + u16(frame, ip + 2));
  const tcp = ip + ipBytes;
  if (ipBytes < IPV4_BYTES || frame[ip + 9] !== PROTOCOL_TCP || tcp + TCP_BYTES > end) return undefined;
  if ((u16(frame, ip + 6) & FRAGMENT_MASK) !== 0) return undefined;
  const tcpBytes = ((frame[tcp + 12] ?? 0) >> 4) * 4;
  if (tcpBytes < TCP_BYTES || tcp + tcpBytes > end) return undefined;
  const flags = frame[tcp + 13] ?? 0;
  return {
    from: { mac: frame.slice(6, 12), address: u32(frame, ip + 12), port: u16(frame, tcp) },
    port: u16(frame, tcp + 2),
    segment: {
      sequence: u32(frame, tcp + 4),
      acknowledgement: u32(frame, tcp + 8),
      flags,
      window: u16(frame, tcp + 14),
      mss: (flags & SYN) === 0 ? undefined : readMss(frame.subarray(tcp + TCP_BYTES, tcp + tcpBytes)),
      payload: frame.subarray(tcp + tcpBytes, end),
    },
  };
}

function readMss(options: Uint8Array): number | undefined {
  for (let at = 0; at < options.length;) {
    const kind = options[at];
    if (kind === OPTION_END) return undefined;
    if (kind === OPTION_NOTHING) {
      at++;
      continue;
    }
    const length = options[at + 1] ?? 0;
    if (length < 2 || at + length > options.length) return undefined;
    if (kind === OPTION_MSS && length === MSS_OPTION_BYTES) return u16(options, at + 2);
    at += length;
  }
  return undefined;
}

/** Returns the frame's length. A segment with an MSS has no payload. */
export function writeSegment(frame: Uint8Array, own: Peer, to: Peer, segment: Partial<Segment>): number {
  const { sequence = 0, acknowledgement = 0, flags = 0, window = 0, mss, payload = NOTHING } = segment;
  writeEthernet(frame, own.mac, to.mac, ETHERTYPE_IPV4);
  const ip = ETHERNET_BYTES;
  const tcp = ip + IPV4_BYTES;
  const tcpBytes = TCP_BYTES + (mss === undefined ? 0 : MSS_OPTION_BYTES);
  const length = IPV4_BYTES + tcpBytes + payload.length;
  frame.fill(0, ip, tcp + tcpBytes);
  frame[ip] = 0x45;
  put16(frame, ip + 2, length);
  put16(frame, ip + 6, DONT_FRAGMENT);
  frame[ip + 8] = TIME_TO_LIVE;
  frame[ip + 9] = PROTOCOL_TCP;
  put32(frame, ip + 12, own.address);
  put32(frame, ip + 16, to.address);
  put16(frame, ip + 10, checksum(frame, ip, tcp, 0));
  put16(frame, tcp, own.port);
  put16(frame, tcp + 2, to.port);
  put32(frame, tcp + 4, sequence);
  put32(frame, tcp + 8, acknowledgement);
  frame[tcp + 12] = (tcpBytes / 4) << 4;
  frame[tcp + 13] = flags;
  put16(frame, tcp + 14, window);
  if (mss !== undefined) {
    frame[tcp + TCP_BYTES] = OPTION_MSS;
    frame[tcp + TCP_BYTES + 1] = MSS_OPTION_BYTES;
    put16(frame, tcp + TCP_BYTES + 2, mss);
  }
  frame.set(payload, tcp + tcpBytes);
  // The pseudo header: both addresses, the protocol, the length.
  const pseudo = sum(frame, ip + 12, ip + 20) + PROTOCOL_TCP + tcpBytes + payload.length;
  put16(frame, tcp + 16, checksum(frame, tcp, ip + length, pseudo));
  return ip + length;
}

function writeEthernet(frame: Uint8Array, from: Uint8Array, to: Uint8Array, type: number): void {
  frame.set(to, 0);
  frame.set(from, 6);
  put16(frame, 12, type);
}

function sum(bytes: Uint8Array, from: number, to: number): number {
  let total = 0;
  for (let at = from; at < to; at += 2) total += ((bytes[at] ?? 0) << 8) | (at + 1 < to ? (bytes[at + 1] ?? 0) : 0);
  return total;
}

/** RFC 1071. */
function checksum(bytes: Uint8Array, from: number, to: number, start: number): number {
  let total = start + sum(bytes, from, to);
  while (total > 0xffff) total = (total & 0xffff) + Math.floor(total / 2 ** 16);
  return ~total & 0xffff;
}
