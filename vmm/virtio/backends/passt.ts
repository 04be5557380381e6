// passt is the network of a guest with the rights of an ordinary user: it answers ARP and DHCP, and
// makes the guest's connections from this host. It gets one end of a socket pair and ends when the other
// is closed, however this process ends, so nothing is left to remove. passt(1). Frames come and go over that pair; by
// vhost-user (passt-vhost-user.ts) it serves the guest's queues itself.
import { spawnSync } from "node:child_process";
import {
  USER_NET_DNS,
  USER_NET_GUEST,
  USER_NET_HOST,
  USER_NET_MASK,
  type ResolvedUserNet,
} from "../../config/user-net.js";
import { HostError } from "../../errors.js";
import { streamPair } from "../../sys/sockets.js";
import { closeDescriptor } from "../../sys/descriptors.js";

/** Descriptor that it finds its end of the pair at. */
const PASST_FD = 3;
/** It goes to the background when it is ready, usually after milliseconds. */
const START_LIMIT_MS = 10_000;
/** What it always prints. */
export const NOISE =
  /^(Failed to send \d+ bytes to syslog|Don't run as root|Started as root, will change to nobody|\s*$)/;

/** Starts one; returns the descriptor of the stream to it. Throws HostError. */
export function startPasst(user: ResolvedUserNet, mtu: number): number {
  const [own, other] = streamPair();
  try {
    const { error, status, signal, stderr } = spawnSync("passt", passtArguments(user, mtu), {
      stdio: ["ignore", "ignore", "pipe", other],
      encoding: "utf8",
      timeout: START_LIMIT_MS,
    });
    if (error !== undefined) throw cannotStart(error);
    if (status !== 0) {
      const lines = stderr.split("\n").filter((line) => !NOISE.test(line));
      throw noNetwork(lines.length > 0 ? lines : [`ended with ${String(status ?? signal)}`]);
    }
    return own;
  } catch (error) {
    closeDescriptor(own);
    throw error;
  } finally {
    closeDescriptor(other);
  }
}

export function passtArguments({ forwards, reachesHost }: ResolvedUserNet, mtu: number): string[] {
  return [
    // The guest's kernels have their address in IPv4; with IPv6, passt would give it the host's own.
    ...["--ipv4-only", "--quiet", "--fd", String(PASST_FD)],
    ...["--address", USER_NET_GUEST, "--netmask", USER_NET_MASK, "--gateway", USER_NET_HOST],
    ...["--dns-forward", USER_NET_DNS, "--mtu", String(mtu)],
    ...(reachesHost ? [] : ["--no-map-gw"]),
    ...forwards.flatMap(({ protocol, hostAddress, hostPort, guestPort }) => [
      protocol === "tcp" ? "--tcp-ports" : "--udp-ports",
      `${hostAddress}/${String(hostPort)}:${String(guestPort)}`,
    ]),
  ];
}

/** With what it has said. */
export function noNetwork(lines: readonly string[]): HostError {
  const why = lines.map(inWords).join("; ");
  return new HostError(`passt cannot make a network: ${why}`, cureFor(why));
}

function cannotStart(error: Error): HostError {
  const code = (error as NodeJS.ErrnoException).code ?? "";
  if (code === "ENOENT") return noPasst(error);
  return new HostError(`passt cannot be started (${code})`, { cause: error });
}

export function noPasst(cause?: Error): HostError {
  return new HostError("A network in user mode needs the program passt, which is not installed", {
    cause,
    cure: "apt-get install passt",
  });
}

/** "Failed to bind any port for '-t 127.0.0.1/8080:80', exiting", or since 2024 "Failed to bind port 8080 (...) for option '-t ...'" */
function inWords(line: string): string {
  const [, kind, address = "", port = ""] =
    /bind (?:any port|port \d+ \(.*\)) for (?:option )?'-([tu]) ([\d.]+)\/(\d+):/.exec(line) ?? [];
  if (kind === undefined) return line;
  return `it cannot bind port ${address}:${port}/${kind === "t" ? "tcp" : "udp"} of this host`;
}

function cureFor(why: string): { cure?: string } {
  if (/bind/.test(why)) return { cure: "take host ports that are free, from 1024 on without root rights" };
  if (/routable/.test(why)) return { cure: "passt needs a host with an IPv4 default route" };
  return {};
}
