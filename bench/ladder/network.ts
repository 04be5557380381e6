// The network of a run: what a user would set up for a container or a VM. It is made once, and the
// instances of the stage "network" join it. Every rung talks to the same peer on this
// host (programs/peer.c) over the link that it really has.
import { spawn, type ChildProcess } from "node:child_process";
import { readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { findProgram } from "../../vmm/host/programs.js";
import { isRoot } from "./detect.js";
import { runProgram, tryProgram } from "./run-program.js";

/** Where an instance meets the peer. */
interface Meeting {
  /** IPv4, of the peer. */
  readonly address: string;
  readonly port: number;
}

export type Joint =
  /** The host's own network: the peer is at the loopback interface. */
  | (Meeting & { readonly kind: "host" })
  /** A network namespace (a file) with one end of a veth pair. */
  | (Meeting & { readonly kind: "veth"; readonly namespace: string })
  /** A bridge of this host, for engines that make their own veth pairs. */
  | (Meeting & { readonly kind: "bridge"; readonly device: string })
  /** A TAP interface of this host; the guest's end is `guestAddress`. */
  | (Meeting & {
      readonly kind: "tap";
      readonly device: string;
      readonly guestAddress: string;
      readonly netmask: string;
    });

export type JointKind = Joint["kind"];

export type Joints = { readonly [K in JointKind]?: Extract<Joint, { kind: K }> };

export interface Network {
  /** By kind; one that could not be made is not there, and `missing` has the reason. */
  readonly joints: Joints;
  readonly missing: string;
  close(): void;
}

/** The words that put a program of the host into the namespace, before it isolates itself further. */
export function entering(joint: Joint | undefined): string[] {
  return joint?.kind === "veth" ? ["nsenter", `--net=${joint.namespace}`] : [];
}

/** The kernel allows 15 characters: no room for the run's whole name. */
const DEVICE = /^vml(\d+)[htb]$/;
/** An interface that a run has made, not the host. */
export function isOwnDevice(name: string): boolean {
  return DEVICE.test(name);
}

const NETMASK_30 = "255.255.255.252";
/** How long the peer may take to say its ports, `ms`. */
const PEER_STARTS_MS = 5000;

/** One command of ip(8) a line. */
function ip(lines: readonly string[], within: readonly string[] = []): void {
  const [file, ...argv] = [...within, "ip", "-batch", "-"];
  runProgram(file, argv, { input: Buffer.from(`${lines.join("\n")}\n`) });
}

interface Plan {
  readonly address: Readonly<Record<JointKind, string>>;
  readonly device: Readonly<Record<"veth" | "tap" | "bridge", string>>;
  readonly inside: Readonly<Record<"veth" | "tap", string>>;
}

/** Addresses of RFC 2544: set aside for benchmarks, so that no network of the host has them. */
function planOf(pid: number): Plan {
  const net = `198.${String(18 + ((pid >> 8) & 1))}.${String(pid & 255)}`;
  const device = (letter: string): string => `vml${String(pid)}${letter}`;
  return {
    address: { host: "127.0.0.1", veth: `${net}.1`, tap: `${net}.5`, bridge: `${net}.9` },
    device: { veth: device("h"), tap: device("t"), bridge: device("b") },
    inside: { veth: `${net}.2`, tap: `${net}.6` },
  };
}

/** A namespace bound to a file of the run's folder: it goes with the mount. */
function makeLinks(folder: string, { address, device, inside }: Plan): string {
  const namespace = join(folder, "network-namespace");
  writeFileSync(namespace, "");
  runProgram("unshare", [`--net=${namespace}`, "true"]);
  const within = ["nsenter", `--net=${namespace}`];
  ip(
    [
      `link add eth0 type veth peer name ${device.veth} netns ${String(process.pid)}`,
      `addr add ${inside.veth}/30 dev eth0`,
      ...["link set lo up", "link set eth0 up"],
    ],
    within,
  );
  ip([
    ...[`addr add ${address.veth}/30 dev ${device.veth}`, `link set ${device.veth} up`],
    `tuntap add ${device.tap} mode tap`,
    ...[`addr add ${address.tap}/30 dev ${device.tap}`, `link set ${device.tap} up`],
    `link add ${device.bridge} type bridge`,
    ...[`addr add ${address.bridge}/29 dev ${device.bridge}`, `link set ${device.bridge} up`],
  ]);
  return namespace;
}

/** Its port by address. */
async function startPeer(file: string, addresses: readonly string[]): Promise<[ChildProcess, Map<string, number>]> {
  const child = spawn(file, addresses, { stdio: ["ignore", "pipe", "pipe"] });
  const ports = new Map<string, number>();
  let errors = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => (errors += text));
  await new Promise<void>((resolve, reject) => {
    const guard = setTimeout(() => {
      reject(new Error("the peer does not start"));
    }, PEER_STARTS_MS);
    createInterface({ input: child.stdout }).on("line", (line) => {
      const { address, port } = JSON.parse(line) as { address: string; port: number };
      if (ports.set(address, port).size === addresses.length) {
        clearTimeout(guard);
        resolve();
      }
    });
    child.once("close", () => {
      clearTimeout(guard);
      reject(new Error(errors.trim() || "the peer ended"));
    });
  });
  return [child, ports];
}

function whyNoLinks(): string | undefined {
  if (!isRoot()) return "needs root";
  const absent = ["ip", "nsenter", "unshare"].find((name) => findProgram(name) === undefined);
  return absent === undefined ? undefined : `${absent} is not installed (Debian: iproute2, util-linux)`;
}

function removeDevices(isOurs: (pid: number) => boolean): void {
  for (const name of readdirSync("/sys/class/net")) {
    const pid = DEVICE.exec(name)?.[1];
    if (pid !== undefined && isOurs(Number(pid))) tryProgram("ip", ["link", "del", name]);
  }
}

/** Links of runs that were ended by SIGKILL. */
export function sweepNetworks(isDead: (pid: number) => boolean): void {
  removeDevices(isDead);
}

/** A kind that cannot be made has its reason in `missing`; the loopback interface is always there. */
export async function openNetwork(folder: string, peer: string): Promise<Network> {
  const plan = planOf(process.pid);
  let missing = whyNoLinks();
  let namespace = "";
  if (missing === undefined) {
    try {
      namespace = makeLinks(folder, plan);
    } catch (error) {
      removeDevices((pid) => pid === process.pid);
      missing = error instanceof Error ? error.message : String(error);
    }
  }
  const { address, device, inside } = plan;
  const kinds: readonly JointKind[] = missing === undefined ? ["host", "veth", "tap", "bridge"] : ["host"];
  const [child, ports] = await startPeer(
    peer,
    kinds.map((kind) => address[kind]),
  );
  const meeting = (kind: JointKind): Meeting => ({ address: address[kind], port: ports.get(address[kind]) ?? 0 });
  const host = { kind: "host", ...meeting("host") } as const;
  const links: Joints = {
    veth: { kind: "veth", ...meeting("veth"), namespace },
    tap: { kind: "tap", ...meeting("tap"), device: device.tap, guestAddress: inside.tap, netmask: NETMASK_30 },
    bridge: { kind: "bridge", ...meeting("bridge"), device: device.bridge },
  };
  return {
    joints: missing === undefined ? { host, ...links } : { host },
    missing: missing ?? "",
    close: () => {
      child.kill("SIGKILL");
      removeDevices((pid) => pid === process.pid);
    },
  };
}
