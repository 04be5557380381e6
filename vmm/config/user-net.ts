// A network in user mode: what a caller may ask for, and the addresses in it, which are those that
// users of QEMU know.
import { checkKeys, integerProblem } from "./checks.js";

/** What connects to a port of the host reaches one of the guest. */
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
/** Whatever this host asks for names. */
export const USER_NET_DNS = "10.0.2.3";

const LOOPBACK = "127.0.0.1";
const KEYS: readonly (keyof UserNetConfig)[] = ["forwards", "reachesHost"];
const FORWARD_KEYS: readonly (keyof PortForward)[] = ["protocol", "hostAddress", "hostPort", "guestPort"];

/** `what` names the device in the problems. */
export function resolveUserNet(user: UserNetConfig, what: string, problems: string[]): ResolvedUserNet {
  checkKeys(what, user, KEYS, problems);
  const forwards = (user.forwards ?? []).map((forward) => {
    checkKeys(`${what}: forward`, forward, FORWARD_KEYS, problems);
    const { protocol = "tcp", hostAddress = LOOPBACK, hostPort, guestPort } = forward;
    for (const [name, port] of [
      ["host port", hostPort],
      ["guest port", guestPort],
    ] as const) {
      const problem = integerProblem(`${what}: ${name}`, port, 1, 65535);
      if (problem !== undefined) problems.push(problem);
    }
    if (!["tcp", "udp"].includes(protocol)) {
      problems.push(`${what}: protocol ${JSON.stringify(protocol)} is not one of tcp, udp`);
    }
    if (!isIPv4(hostAddress)) problems.push(`${what}: ${JSON.stringify(hostAddress)} is no IPv4 address`);
    return { protocol, hostAddress, hostPort, guestPort };
  });
  return { forwards, reachesHost: user.reachesHost ?? true };
}

/** By hand: node:net, which could tell, costs milliseconds of every start. */
export function isIPv4(text: string): boolean {
  return /^(?:\d{1,3}\.){3}\d{1,3}$/.test(text) && text.split(".").every((part) => Number(part) <= 255);
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
