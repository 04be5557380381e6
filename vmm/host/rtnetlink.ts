// Messages of rtnetlink(7): struct nlmsghdr, a body, attributes. Made and read here, sent by sys/netlink.ts on this host and
// by the agent in a guest. Numbers are of linux/netlink.h, rtnetlink.h, if_link.h, if_addr.h.

export const NLM_F_REQUEST = 0x01;
export const NLM_F_ACK = 0x04;
export const NLM_F_DUMP = 0x300;
export const NLM_F_REPLACE = 0x100;
export const NLM_F_CREATE = 0x400;

export const RTM_NEWLINK = 16;
export const RTM_GETLINK = 18;
export const RTM_NEWADDR = 20;
export const RTM_GETADDR = 22;
export const RTM_NEWROUTE = 24;
export const RTM_GETROUTE = 26;

export const AF_UNSPEC = 0;
export const AF_INET = 2;
export const AF_INET6 = 10;

const HEADER_BYTES = 16;
const IFLA_ADDRESS = 1;
const IFLA_IFNAME = 3;
const IFLA_MTU = 4;
const IFF_UP = 1;
const IFA_ADDRESS = 1;
const IFA_LOCAL = 2;
const IFA_BROADCAST = 4;
/** The address may be used at once: nobody else is asked whether it is theirs. */
const IFA_F_NODAD = 0x02;
const RTA_DST = 1;
const RTA_OIF = 4;
const RTA_GATEWAY = 5;
const RTA_PRIORITY = 6;
const RTA_PREFSRC = 7;
const RT_TABLE_MAIN = 254;
const RTN_UNICAST = 1;
const RTPROT_BOOT = 3;
export const RT_SCOPE_LINK = 253;

/** An attribute: a type, its length, the bytes, up to a multiple of 4. */
export function attribute(type: number, value: Uint8Array): Buffer {
  const bytes = Buffer.alloc(4 + ((value.length + 3) & ~3));
  bytes.writeUInt16LE(4 + value.length, 0);
  bytes.writeUInt16LE(type, 2);
  bytes.set(value, 4);
  return bytes;
}

export function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value >>> 0, 0);
  return bytes;
}

export function text(value: string): Buffer {
  return Buffer.from(`${value}\0`);
}

/** A message that is answered; its number in the conversation is the sender's to set, if it has one. */
export function message(type: number, flags: number, body: Uint8Array, attributes: readonly Uint8Array[] = []): Buffer {
  const rest = Buffer.concat([body, ...attributes]);
  const head = Buffer.alloc(HEADER_BYTES);
  head.writeUInt32LE(HEADER_BYTES + rest.length, 0);
  head.writeUInt16LE(type, 4);
  head.writeUInt16LE(NLM_F_REQUEST | NLM_F_ACK | flags, 6);
  return Buffer.concat([head, rest]);
}

/** Attributes by type; what is cut off, and a second one of a type, is left out. */
export function readAttributes(bytes: Buffer): ReadonlyMap<number, Buffer> {
  const found = new Map<number, Buffer>();
  for (let at = 0; at + 4 <= bytes.length;) {
    const length = bytes.readUInt16LE(at);
    if (length < 4 || at + length > bytes.length) break;
    // The two highest bits are flags: nested, and in network order.
    const type = bytes.readUInt16LE(at + 2) & 0x3fff;
    if (!found.has(type)) found.set(type, bytes.subarray(at + 4, at + length));
    at += (length + 3) & ~3;
  }
  return found;
}

export interface Link {
  readonly index: number;
  readonly name: string;
  /** ARPHRD_… of linux/if_arp.h. */
  readonly hardware: number;
  readonly isUp: boolean;
  readonly mac: Uint8Array;
  /** `bytes` of a packet. */
  readonly mtu: number;
}

export interface InterfaceAddress {
  readonly index: number;
  readonly family: number;
  readonly address: Uint8Array;
  readonly prefixLength: number;
  readonly scope: number;
  readonly broadcast: Uint8Array | undefined;
}

export interface InterfaceRoute {
  readonly index: number;
  readonly family: number;
  /** Undefined: the default route. */
  readonly destination: Uint8Array | undefined;
  readonly prefixLength: number;
  readonly gateway: Uint8Array | undefined;
  readonly source: Uint8Array | undefined;
  readonly priority: number | undefined;
  readonly scope: number;
  /** RTNH_F_…: 4 says that the gateway is on the link whatever the addresses say. */
  readonly flags: number;
}

function bodyOf(payload: Buffer, length: number): [body: Buffer, attributes: ReadonlyMap<number, Buffer>] {
  const body = Buffer.alloc(length);
  payload.copy(body, 0, 0, length);
  return [body, readAttributes(payload.subarray(length))];
}

/** struct ifinfomsg. */
export function readLink(payload: Buffer): Link {
  const [body, attributes] = bodyOf(payload, 16);
  const name = attributes.get(IFLA_IFNAME)?.toString("latin1") ?? "";
  const mtu = attributes.get(IFLA_MTU);
  return {
    hardware: body.readUInt16LE(2),
    index: body.readInt32LE(4),
    isUp: (body.readUInt32LE(8) & IFF_UP) !== 0,
    name: name.replace(/\0[^]*$/, ""),
    mac: attributes.get(IFLA_ADDRESS) ?? new Uint8Array(),
    mtu: mtu?.length === 4 ? mtu.readUInt32LE(0) : 0,
  };
}

/** struct ifaddrmsg. */
export function readAddress(payload: Buffer): InterfaceAddress {
  const [body, attributes] = bodyOf(payload, 8);
  return {
    family: body.readUInt8(0),
    prefixLength: body.readUInt8(1),
    scope: body.readUInt8(3),
    index: body.readUInt32LE(4),
    // Of a point-to-point link IFA_ADDRESS is the other end's.
    address: attributes.get(IFA_LOCAL) ?? attributes.get(IFA_ADDRESS) ?? new Uint8Array(),
    broadcast: attributes.get(IFA_BROADCAST),
  };
}

/** struct rtmsg. Undefined for what the kernel makes by itself, and for other tables and types than the usual ones. */
export function readRoute(payload: Buffer): InterfaceRoute | undefined {
  const RTPROT_KERNEL = 2;
  const [body, attributes] = bodyOf(payload, 12);
  const index = attributes.get(RTA_OIF);
  const priority = attributes.get(RTA_PRIORITY);
  if (body.readUInt8(4) !== RT_TABLE_MAIN || body.readUInt8(5) === RTPROT_KERNEL) return undefined;
  if (body.readUInt8(7) !== RTN_UNICAST || index?.length !== 4) return undefined;
  return {
    family: body.readUInt8(0),
    prefixLength: body.readUInt8(1),
    scope: body.readUInt8(6),
    flags: body.readUInt32LE(8),
    index: index.readUInt32LE(0),
    destination: attributes.get(RTA_DST),
    gateway: attributes.get(RTA_GATEWAY),
    source: attributes.get(RTA_PREFSRC),
    priority: priority?.length === 4 ? priority.readUInt32LE(0) : undefined,
  };
}

export interface LinkChange {
  readonly mac?: Uint8Array;
  readonly mtu?: number;
}

/** Sets an interface up, with another hardware address (which it takes only while it is down) and MTU. */
export function setUpLink(index: number, { mac, mtu }: LinkChange = {}): Buffer[] {
  const body = (flags: number): Buffer => {
    const bytes = Buffer.alloc(16);
    bytes.writeInt32LE(index, 4);
    bytes.writeUInt32LE(flags, 8);
    bytes.writeUInt32LE(IFF_UP, 12);
    return bytes;
  };
  const attributes = [
    ...(mac === undefined ? [] : [attribute(IFLA_ADDRESS, mac)]),
    ...(mtu === undefined ? [] : [attribute(IFLA_MTU, u32(mtu))]),
  ];
  return [
    ...(attributes.length === 0 ? [] : [message(RTM_NEWLINK, 0, body(0), attributes)]),
    message(RTM_NEWLINK, 0, body(IFF_UP)),
  ];
}

export function addAddress(index: number, address: Omit<InterfaceAddress, "index">): Buffer {
  const { family, prefixLength, scope, broadcast } = address;
  const body = Buffer.alloc(8);
  body.set([family, prefixLength, family === AF_INET6 ? IFA_F_NODAD : 0, scope]);
  body.writeUInt32LE(index, 4);
  return message(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, body, [
    attribute(IFA_LOCAL, address.address),
    attribute(IFA_ADDRESS, address.address),
    ...(broadcast === undefined ? [] : [attribute(IFA_BROADCAST, broadcast)]),
  ]);
}

export function addRoute(index: number, route: Omit<InterfaceRoute, "index">): Buffer {
  const body = Buffer.alloc(12);
  body.set([route.family, route.prefixLength, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, route.scope, RTN_UNICAST]);
  body.writeUInt32LE(route.flags & 0x4, 8);
  const bytes = [
    [RTA_DST, route.destination],
    [RTA_GATEWAY, route.gateway],
    [RTA_PREFSRC, route.source],
    [RTA_PRIORITY, route.priority === undefined ? undefined : u32(route.priority)],
    [RTA_OIF, u32(index)],
  ] as const;
  return message(
    RTM_NEWROUTE,
    NLM_F_CREATE | NLM_F_REPLACE,
    body,
    bytes.flatMap(([type, value]) => (value === undefined ? [] : [attribute(type, value)])),
  );
}
