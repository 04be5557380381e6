// The network devices of a VM: what a caller may ask for, checked as far as that goes without the host.
import { parseMacAddress } from "../../devices/virtio/net/mac-address.js";
import type { RateLimiterConfig } from "../../devices/virtio/rate-limiter.js";
import type { Checked } from "./check.js";
import { MAX_VIRTIO_DEVICES } from "./defaults.js";
import { RATE_LIMITER_SCHEMA } from "./rate-limiter.js";
import { IPV4_PATTERN } from "./schema.js";
import { show } from "./show.js";
import { resolveUserNet, USER_NET_SCHEMA, type ResolvedUserNet, type UserNetConfig } from "./user-net.js";

const VHOST_CHOICES = ["auto", "off", "on"] as const;
export type VhostChoice = (typeof VHOST_CHOICES)[number];

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
  /** It leads to the guest's metadata service, too (`mmds`). */
  readonly mmds?: boolean | undefined;
  /**
   * Frames go past this process, which sees none of them: the host kernel's vhost-net moves those of a TAP interface, passt itself
   * those of a network in user mode, if it speaks vhost-user. "on" wants it, "auto", the default, takes it where the host has it,
   * nothing needs to see the frames, and it is faster.
   */
  readonly vhost?: VhostChoice | undefined;
  /** For each direction by itself; in its place, one for what the guest receives and one for what it sends. */
  readonly rateLimiter?: RateLimiterConfig | undefined;
  readonly rxRateLimiter?: RateLimiterConfig | undefined;
  readonly txRateLimiter?: RateLimiterConfig | undefined;
}

/** It has `tap` or `user`. */
export interface ResolvedNet {
  readonly tap: string | undefined;
  readonly user: ResolvedUserNet | undefined;
  /** 6 bytes, undefined for a random one. */
  readonly mac: Uint8Array | undefined;
  readonly mtu: number | undefined;
  readonly hostAddress: { readonly address: string; readonly prefixLength: number } | undefined;
  readonly mmds: boolean;
  readonly vhost: VhostChoice;
  readonly rxRateLimiter: RateLimiterConfig | undefined;
  readonly txRateLimiter: RateLimiterConfig | undefined;
}

/** The least that IPv4 works with, and the most that the device's field holds. virtio 1.2 §5.1.4.1. */
const MIN_MTU = 68;
const MAX_MTU = 65535;
/** Networks that no interface of a host can be in: 0.0.0.0/8, loopback, multicast and everything above it. */
const NO_HOST = "(?!0\\.|127\\.|22[4-9]\\.|2[3-5]\\d\\.)";

export const NET_SCHEMA = {
  type: "object",
  title: "Network device",
  properties: {
    tap: {
      type: "string",
      pattern: "^(?!\\.{1,2}$)[^\\s/%:\\0]{1,15}$",
      "x-expected": 'a name of 1 to 15 characters, or "auto"',
    },
    user: USER_NET_SCHEMA,
    mac: {
      type: "string",
      // Bit 0 of the first byte marks a group; an interface needs an address of its own that is not all zeroes.
      pattern: "^(?!(?:00:){5}00$)[\\da-fA-F][02468aceACE](?::[\\da-fA-F]{2}){5}$",
      "x-expected": "an address of one interface, such as 52:54:00:12:34:56",
    },
    mtu: { type: "integer", minimum: MIN_MTU, maximum: MAX_MTU, "x-unit": "bytes" },
    hostAddress: {
      type: "string",
      pattern: `^${NO_HOST}${IPV4_PATTERN}/(?:[1-9]|[12]\\d|3[0-2])$`,
      "x-expected": "an IPv4 address of a host with a prefix from 1 to 32, such as 172.16.0.1/24",
    },
    mmds: { type: "boolean" },
    vhost: { enum: VHOST_CHOICES },
    rateLimiter: RATE_LIMITER_SCHEMA,
    rxRateLimiter: RATE_LIMITER_SCHEMA,
    txRateLimiter: RATE_LIMITER_SCHEMA,
  },
  required: [],
  additionalProperties: false,
} as const;

export const NETS_SCHEMA = { type: "array", items: NET_SCHEMA, maxItems: MAX_VIRTIO_DEVICES } as const;

type CheckedNet = Checked<typeof NET_SCHEMA>;

/** Resolves all network devices; what is wrong with them together goes into `problems`. One that is no object is undefined. */
export function resolveNets(nets: readonly (CheckedNet | undefined)[], problems: string[]): ResolvedNet[] {
  const given = nets.map((net) => net ?? {});
  const named = given.flatMap(({ tap }) => (tap === undefined || tap === "auto" ? [] : [tap]));
  for (const tap of repeated(named)) {
    problems.push(`TAP interface ${show(tap)} is given to more than one network device`);
  }
  for (const mac of repeated(given.flatMap(({ mac }) => mac?.toLowerCase() ?? []))) {
    problems.push(`Address ${mac} is given to more than one network device`);
  }
  if (given.filter(({ user }) => user !== undefined).length > 1) {
    problems.push("Only one network device can be in user mode");
  }
  return nets.map((net, index) => {
    // One that is not an object has its problem already.
    return net === undefined ? NO_NET : resolveNet(net, `Network device ${String(index + 1)}`, problems);
  });
}

/** Somebody has to look at its frames: they do not go past this process. */
export function hasToSeeFrames({ mmds, rxRateLimiter, txRateLimiter }: ResolvedNet): boolean {
  return mmds || rxRateLimiter !== undefined || txRateLimiter !== undefined;
}

/** The same, but that no process has the guest's memory for a network of which nobody has asked for that. */
export function withoutSharing(nets: readonly ResolvedNet[]): ResolvedNet[] {
  return nets.map((net) => (net.user !== undefined && net.vhost === "auto" ? { ...net, vhost: "off" } : net));
}

const NO_NET: ResolvedNet = {
  tap: undefined,
  user: undefined,
  mac: undefined,
  mtu: undefined,
  hostAddress: undefined,
  mmds: false,
  vhost: "off",
  rxRateLimiter: undefined,
  txRateLimiter: undefined,
};

function repeated(values: readonly string[]): Set<string> {
  return new Set(values.filter((value, at) => values.indexOf(value) !== at));
}

function resolveNet(net: CheckedNet, where: string, problems: string[]): ResolvedNet {
  const { tap, mtu, mac, rateLimiter, rxRateLimiter = rateLimiter, txRateLimiter = rateLimiter } = net;
  const isUser = net.user !== undefined;
  // One of the two may have been given, but wrong.
  const isWrong = problems.some((problem) => problem.startsWith(`${where}: `));
  if (!isUser && tap === undefined && !isWrong) {
    problems.push(`${where}: no TAP interface is given, nor user mode`);
  }
  if (isUser && tap !== undefined) {
    problems.push(`${where}: it has the TAP interface ${tap} or is in user mode, not both`);
  }
  if (net.hostAddress !== undefined && (isUser || (tap !== undefined && tap !== "auto"))) {
    const owner = isUser ? "a network in user mode" : `the interface ${tap ?? ""}`;
    problems.push(`${where}: ${owner} has addresses already; "auto" can be given one`);
  }
  if (rateLimiter !== undefined && (net.rxRateLimiter ?? net.txRateLimiter) !== undefined) {
    problems.push(`${where}: rateLimiter is for both directions; give it or one for a direction, not both`);
  }
  if (net.vhost === "on") {
    const needs =
      net.mmds === true
        ? "the metadata service is served by this process"
        : (rxRateLimiter ?? txRateLimiter) === undefined
          ? undefined
          : "a rate limiter is this process's";
    if (needs !== undefined) problems.push(`${where}: vhost is on, but ${needs}`);
  }
  const [address = "", prefix = ""] = net.hostAddress?.split("/") ?? [];
  return {
    tap,
    user: net.user === undefined ? undefined : resolveUserNet(net.user, where, problems),
    mac: mac === undefined ? undefined : parseMacAddress(mac),
    mtu,
    hostAddress: net.hostAddress === undefined ? undefined : { address, prefixLength: Number(prefix) },
    mmds: net.mmds ?? false,
    vhost: net.vhost ?? "auto",
    rxRateLimiter,
    txRateLimiter,
  };
}
