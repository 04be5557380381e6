// The network of a container in its VM: devices from the start, what an engine has connected once the program begins.
import { existsSync, readFileSync } from "node:fs";
import { posix } from "node:path";
import type { Agent } from "../../agent/agent.js";
import { ContainerNetwork, RELAY_ADDRESS } from "./connect.js";
import { relayNames, withNameServer, type NameServerRelay } from "./name-server.js";
import type { NetworkState } from "../state.js";

/** As a guest's kernel numbers interfaces, behind its loopback. */
const FIRST_INDEX = 2;
const RESOLVER_IN_GUEST = "/.vmlet/resolv.conf";
const DRIVER = "/sys/bus/virtio/drivers/virtio_net/unbind";

export interface Resolver {
  /** The file in the guest that is to be the container's /etc/resolv.conf; undefined: as it is. */
  readonly path: string | undefined;
}

export class GuestNetwork {
  readonly #keep: (state: NetworkState) => void;
  #network: ContainerNetwork | undefined;
  #relay: NameServerRelay | undefined;
  /** What the guest's interfaces have been made of. */
  #connected: string | undefined;

  /** `keep` is told what there will be in the namespace, before it is made. */
  constructor(keep: (state: NetworkState) => void) {
    this.#keep = keep;
  }

  /** Interfaces for the VM's devices: as many as there are yet, and one for an engine that comes later. Throws HostError. */
  prepare(): void {
    this.#network ??= new ContainerNetwork(this.#keep);
    this.#network.prepare(Math.max(1, this.#network.names().length));
  }

  get taps(): readonly string[] {
    return this.#network?.taps ?? [];
  }

  /** The VM has fewer devices than there are interfaces by now, and must be made anew. */
  get needsMore(): boolean {
    return (this.#network?.names().length ?? 0) > this.taps.length;
  }

  /** Whether the interfaces are no more what they were when they were connected; false before that. */
  get hasChanged(): boolean {
    return this.#connected !== undefined && this.#connected !== this.#network?.describe();
  }

  /**
   * Whether there will be none but the loopback, as far as that can be known before an engine has made it. `hosts`: the host's file
   * that the container has as /etc/hosts, in which an engine writes the names that it has in networks.
   */
  seemsNone(hosts: string | undefined, hostName: string | undefined): boolean {
    if ((this.#network?.names().length ?? 0) > 0) return false;
    return hostName === undefined || hostName === "" || !textOf(hosts).split(/\s/).includes(hostName);
  }

  get isNone(): boolean {
    return (this.#network?.names().length ?? 0) === 0;
  }

  /** The container has a file of the guest's as its /etc/resolv.conf. */
  needsResolver(resolvConf: string | undefined): boolean {
    return (this.#network?.names().length ?? 0) > 0 && withNameServer(textOf(resolvConf), RELAY_ADDRESS) !== undefined;
  }

  /**
   * Makes the guest's interfaces what the namespace's are, and removes those that nobody has connected. `resolvConf`: the
   * host's file that the container has as /etc/resolv.conf. `areRemoved`: that has been done. Rejects with what the guest or this host's kernel refuses.
   */
  async connect(agent: Agent, resolvConf: string | undefined, { areRemoved = false } = {}): Promise<Resolver> {
    const network = this.#network;
    if (network === undefined) return { path: undefined };
    const resolver = withNameServer(textOf(resolvConf), RELAY_ADDRESS);
    this.#connected = network.describe();
    const interfaces = network.connect({ hasRelay: resolver !== undefined });
    const [server] = resolver?.servers ?? [];
    const hasRelay = interfaces.length > 0 && server !== undefined;
    if (hasRelay) this.#relay = await relayNames(RELAY_ADDRESS, server);
    await Promise.all([
      ...interfaces.map((from, at) => agent.guest.changeNetwork(from.messages(FIRST_INDEX + at))),
      ...(hasRelay && resolver !== undefined ? [agent.files.write(RESOLVER_IN_GUEST, resolver.text)] : []),
      ...(areRemoved ? [] : [removeInterfaces(agent, interfaces.length, network.taps.length)]),
    ]);
    return { path: hasRelay ? RESOLVER_IN_GUEST : undefined };
  }

  /** Sockets are made as the guest asks for names. */
  get asksNameServer(): boolean {
    return this.#relay !== undefined;
  }

  /** The VM must have ended. */
  close(): void {
    this.#relay?.close();
    this.#network?.close();
    this.#relay = this.#network = this.#connected = undefined;
  }
}

function textOf(path: string | undefined): string {
  return path !== undefined && existsSync(path) ? readFileSync(path, "utf8") : "";
}

/** Requests to the agent for each interface that goes. */
export const REMOVAL_REQUESTS = 2;

/** A container without a network sees none: of `count` interfaces those from `first` on go. */
export async function removeInterfaces(agent: Agent, first: number, count: number): Promise<void> {
  for (let number = first; number < count; number++) await removeInterface(agent, number);
}

async function removeInterface(agent: Agent, number: number): Promise<void> {
  const link = await agent.files.readlink(`/sys/class/net/eth${String(number)}/device`);
  await agent.files.write(DRIVER, posix.basename(link));
}
