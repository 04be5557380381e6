// The network devices of a VM: what a caller may ask for, checked as far as that goes without the host.
import { parseMacAddress } from "../../devices/virtio/net/mac-address.js";
import type { RateLimiterConfig } from "../../devices/virtio/rate-limiter.js";
import { checkKeys, integerProblem } from "./checks.js";
import { checkRateLimiter } from "./rate-limits.js";

/** A virtio network device on a TAP interface of the host: eth0, eth1, … in the order given. */
export interface NetConfig {
  /** "auto": a new interface that goes with the VM (root rights). Else the name of one that exists. */
  readonly tap: string;
  /** Address of the guest's interface, such as "52:54:00:12:34:56"; default: a random one. */
  readonly mac?: string | undefined;
  /** `bytes` of a packet, 68 to 65535: told to the guest, and set on a new interface. */
  readonly mtu?: number | undefined;
  /** IPv4 address and prefix of the host's end, such as "172.16.0.1/24"; only for a new interface. */
  readonly hostAddress?: string | undefined;
  /** For each direction by itself. */
  readonly rateLimiter?: RateLimiterConfig | undefined;
}

export interface ResolvedNet {
  readonly tap: string;
  /** 6 bytes, undefined for a random one. */
  readonly mac: Uint8Array | undefined;
  readonly mtu: number | undefined;
  readonly hostAddress: { readonly address: string; readonly prefixLength: number } | undefined;
  readonly rateLimiter: RateLimiterConfig | undefined;
}

/** The least that IPv4 works with, and the most that the device's field holds. virtio 1.2 §5.1.4.1. */
const MIN_MTU = 68;
const MAX_MTU = 65535;
const KEYS: readonly (keyof NetConfig)[] = ["tap", "mac", "mtu", "hostAddress", "rateLimiter"];

/** Resolves all network devices; everything that is wrong with any of them goes into `problems`. */
export function resolveNets(nets: readonly NetConfig[], problems: string[]): ResolvedNet[] {
  const named = nets.flatMap(({ tap }) => (tap === "auto" ? [] : [tap]));
  for (const tap of new Set(named.filter((name, at) => named.indexOf(name) !== at))) {
    problems.push(`TAP interface ${JSON.stringify(tap)} is given to more than one network device`);
  }
  return nets.map((net, index) => resolveNet(net, `Network device ${String(index + 1)}`, problems));
}

function resolveNet(net: NetConfig, what: string, problems: string[]): ResolvedNet {
  checkKeys(what, net, KEYS, problems);
  // What comes from JavaScript may lack it.
  const tap = (net.tap as string | undefined) ?? "";
  if (tap === "") problems.push(`${what}: no TAP interface is given`);
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
    problems.push(`${what}: the interface ${tap} has the addresses that its owner gave it; "auto" can be given one`);
  }
  checkRateLimiter(net.rateLimiter, what, problems);
  return { tap, mac, mtu: net.mtu, hostAddress, rateLimiter: net.rateLimiter };
}

function parseHostAddress(text: string): ResolvedNet["hostAddress"] {
  // By hand: node:net, which could tell, costs milliseconds of every start.
  const [, address = "", prefix = ""] = /^((?:\d{1,3}\.){3}\d{1,3})\/(\d{1,2})$/.exec(text) ?? [];
  const isAddress = address !== "" && address.split(".").every((part) => Number(part) <= 255);
  return isAddress && Number(prefix) <= 32 ? { address, prefixLength: Number(prefix) } : undefined;
}
