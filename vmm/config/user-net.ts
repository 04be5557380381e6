// A network in user mode: what a caller may ask for, and the addresses in it, which are those that
// users of QEMU know.
import type { Checked } from "./check.js";
import { IPV4_PATTERN } from "./schema.js";

/** A connection to a port of the host reaches a port of the guest. */
export interface PortForward {
  readonly protocol?: "tcp" | "udp" | undefined;
  /** IPv4 address of the host to listen at; default: 127.0.0.1, which only the host itself reaches. */
  readonly hostAddress?: string | undefined;
  readonly hostPort: number;
  readonly guestPort: number;
}

/** A network without rights on the host: the guest's connections are made by a process of this user. */
export interface UserNetConfig {
  readonly forwards?: readonly PortForward[] | undefined;
  /** False: 10.0.2.2 does not lead to what listens on this host's 127.0.0.1. */
  readonly reachesHost?: boolean | undefined;
}

export interface ResolvedUserNet {
  readonly forwards: readonly Required<PortForward>[];
  readonly reachesHost: boolean;
}

export const USER_NET_GUEST = "10.0.2.15";
export const USER_NET_MASK = "255.255.255.0";
/** Router, and this host's loopback interface. */
export const USER_NET_HOST = "10.0.2.2";
/** The name server, which asks this host's resolver. */
export const USER_NET_DNS = "10.0.2.3";

const LOOPBACK = "127.0.0.1";
/** Each costs a socket of this host and an argument of passt. */
const MAX_FORWARDS = 1024;
const PORT = { type: "integer", minimum: 1, maximum: 65535 } as const;

const FORWARD_SCHEMA = {
  type: "object",
  title: "forward",
  properties: {
    protocol: { enum: ["tcp", "udp"] },
    hostAddress: { type: "string", pattern: `^${IPV4_PATTERN}$`, "x-expected": "an IPv4 address" },
    hostPort: PORT,
    guestPort: PORT,
  },
  required: ["hostPort", "guestPort"],
  additionalProperties: false,
} as const;

export const USER_NET_SCHEMA = {
  type: "object",
  properties: {
    forwards: { type: "array", items: FORWARD_SCHEMA, maxItems: MAX_FORWARDS },
    reachesHost: { type: "boolean" },
  },
  required: [],
  additionalProperties: false,
} as const;

/** `where` names the device in the problems. */
export function resolveUserNet(
  user: Checked<typeof USER_NET_SCHEMA>,
  where: string,
  problems: string[],
): ResolvedUserNet {
  // One that is not an object is undefined, and its problem is reported already.
  const given = (user.forwards ?? []) as readonly (Checked<typeof FORWARD_SCHEMA> | undefined)[];
  const forwards = given.map((forward = {}) => {
    const { protocol = "tcp", hostAddress = LOOPBACK, hostPort = 0, guestPort = 0 } = forward;
    return { protocol, hostAddress, hostPort, guestPort };
  });
  const seen = new Set<string>();
  for (const { protocol, hostAddress, hostPort } of forwards) {
    const end = `${hostAddress}:${String(hostPort)}/${protocol}`;
    if (hostPort > 0 && seen.has(end)) problems.push(`${where}: ${end} of this host is forwarded twice`);
    seen.add(end);
  }
  return { forwards, reachesHost: user.reachesHost ?? true };
}

/**
 * The guest's address as Linux's parameter says it: a kernel with CONFIG_IP_PNP sets it, and so does
 * vmlet's init under any other. Linux: admin-guide/nfs/nfsroot.rst.
 */
export function userNetParameters(nets: readonly { readonly user: ResolvedUserNet | undefined }[]): string[] {
  const index = nets.findIndex(({ user }) => user !== undefined);
  if (index < 0) return [];
  const device = `eth${String(index)}`;
  return [`ip=${USER_NET_GUEST}::${USER_NET_HOST}:${USER_NET_MASK}::${device}:off:${USER_NET_DNS}`];
}
