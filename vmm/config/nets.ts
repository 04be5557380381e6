// The network devices of a VM: what a caller may ask for, checked as far as that goes without the host.
import { parseMacAddress } from "../../devices/virtio/net/mac-address.js";
import type { RateLimiterConfig } from "../../devices/virtio/rate-limiter.js";
import { checkKeys, integerProblem } from "./checks.js";
import { checkRateLimiter } from "./rate-limits.js";
import { isIPv4, resolveUserNet, type ResolvedUserNet, type UserNetConfig } from "./user-net.js";

/** A virtio network device on a TAP interface of the host, or in user mode: eth0, eth1, … in the order given. */
export interface NetConfig {
  /** "auto": a new interface that goes with the VM (root rights). Else the name of one that exists. */
  readonly tap?: string | undefined;
  /** In place of an interface, and on one device only: a network that needs no rights (Debian package passt). */
  readonly user?: UserNetConfig | undefined;
  /** Address of the guest's interface, such as "52:54:00:12:34:56"; default: a random one. */
  readonly mac?: string | undefined;
  /** `bytes` of a packet, 68 to 65535: told to the guest, and set on a new interface. */
  readonly mtu?: number | undefined;
  /** IPv4 address and prefix of the host's end, such as "172.16.0.1/24"; only for a new interface. */
  readonly hostAddress?: string | undefined;
  /** For each direction by itself. */
  readonly rateLimiter?: RateLimiterConfig | undefined;
}

/** It has `tap` or `user`. */
export interface ResolvedNet {
  readonly tap: string | undefined;
  readonly user: ResolvedUserNet | undefined;
  /** 6 bytes, undefined for a random one. */
  readonly mac: Uint8Array | undefined;
  readonly mtu: number | undefined;
  readonly hostAddress: { readonly address: string; readonly prefixLength: number } | undefined;
  readonly rateLimiter: RateLimiterConfig | undefined;
}

/** The least that IPv4 works with, and the most that the device's field holds. virtio 1.2 §5.1.4.1. */
const MIN_MTU = 68;
const MAX_MTU = 65535;
const KEYS: readonly (keyof NetConfig)[] = ["tap", "user", "mac", "mtu", "hostAddress", "rateLimiter"];

/** Resolves all network devices; everything that is wrong with any of them goes into `problems`. */
export function resolveNets(nets: readonly NetConfig[], problems: string[]): ResolvedNet[] {
  const named = nets.flatMap(({ tap }) => (tap === undefined || tap === "auto" ? [] : [tap]));
  for (const tap of new Set(named.filter((name, at) => named.indexOf(name) !== at))) {
    problems.push(`TAP interface ${JSON.stringify(tap)} is given to more than one network device`);
  }
  if (nets.filter(({ user }) => user !== undefined).length > 1) {
    problems.push("Only one network device can be in user mode");
  }
  return nets.map((net, index) => resolveNet(net, `Network device ${String(index + 1)}`, problems));
}

function resolveNet(net: NetConfig, what: string, problems: string[]): ResolvedNet {
  checkKeys(what, net, KEYS, problems);
  const { tap } = net;
  const isUser = net.user !== undefined;
  if (!isUser && (tap ?? "") === "") problems.push(`${what}: no TAP interface is given, nor user mode`);
  if (isUser && tap !== undefined)
    problems.push(`${what}: it has the TAP interface ${tap} or is in user mode, not both`);
  const mac = net.mac === undefined ? undefined : parseMacAddress(net.mac);
  if (net.mac !== undefined && mac === undefined) {
    problems.push(`${what}: ${JSON.stringify(net.mac)} is no address of one interface, such as 52:54:00:12:34:56`);
  }
  const mtuProblem =
    net.mtu === undefined ? undefined : integerProblem(`${what}: MTU`, net.mtu, MIN_MTU, MAX_MTU, " bytes");
  if (mtuProblem !== undefined) problems.push(mtuProblem);
  const hostAddress = net.hostAddress === undefined ? undefined : parseHostAddress(net.hostAddress);
  if (net.hostAddress !== undefined && hostAddress === undefined) {
    problems.push(
      `${what}: ${JSON.stringify(net.hostAddress)} is no IPv4 address with a prefix, such as 172.16.0.1/24`,
    );
  }
  if (net.hostAddress !== undefined && tap !== "auto") {
    const owner = isUser ? "a network in user mode" : `the interface ${tap ?? ""}`;
    problems.push(`${what}: ${owner} has addresses already; "auto" can be given one`);
  }
  checkRateLimiter(net.rateLimiter, what, problems);
  const user = net.user === undefined ? undefined : resolveUserNet(net.user, what, problems);
  return { tap, user, mac, mtu: net.mtu, hostAddress, rateLimiter: net.rateLimiter };
}

function parseHostAddress(text: string): ResolvedNet["hostAddress"] {
  const [, address = "", prefix = ""] = /^(.+)\/(\d{1,2})$/.exec(text) ?? [];
  return isIPv4(address) && Number(prefix) <= 32 ? { address, prefixLength: Number(prefix) } : undefined;
}
