// The interfaces of a container's network namespace become the guest's. Each gets a TAP interface beside it, and the
// kernel redirects frames between the two both ways: addresses, ports and firewall rules of the engine hold as they are.
import { HostError, SystemCallError } from "../../errors.js";
import { AF_INET, RT_SCOPE_LINK, type InterfaceAddress } from "../../host/rtnetlink.js";
import { RouteSocket } from "../../sys/netlink.js";
import { configureTap, makePersistentTap, removeTap } from "../../virtio/backends/tap-interface.js";
import { readInterfaces, sameInterface, type NetworkInterface } from "./interfaces.js";
import { redirect, removeRedirect } from "./redirect.js";
import type { NetworkState } from "../state.js";

/** How many devices of a VM may be interfaces. */
export const MAX_INTERFACES = 4;
const TAP_NAME = /^vmlet\d+$/;
/** Between the namespace's own stack and the guest: the name server of the namespace's loopback answers here. */
export const RELAY_ADDRESS = "169.254.77.1";
const RELAY_GUEST_ADDRESS = [169, 254, 77, 2];
const RELAY_PREFIX = 30;

export interface ConnectedInterface {
  /** Name in the namespace, such as "eth0". */
  readonly name: string;
  readonly tap: string;
  /** For the agent: they make the guest's interface with that number the same as the one of the namespace. */
  messages(index: number): Buffer[];
}

const relayAddress: InterfaceAddress = {
  index: 0,
  family: AF_INET,
  address: Uint8Array.from(RELAY_GUEST_ADDRESS),
  prefixLength: RELAY_PREFIX,
  scope: RT_SCOPE_LINK,
  broadcast: undefined,
};

/** What is in the network namespace of this process. */
export class ContainerNetwork {
  readonly #keep: (state: NetworkState) => void;
  readonly #redirected: number[] = [];
  readonly #socket = new RouteSocket();
  readonly #undo: (() => void)[] = [() => this.#socket.close()];
  readonly #taps: string[] = [];

  /** `keep` is told what there will be, before it is made. */
  constructor(keep: (state: NetworkState) => void = () => undefined) {
    this.#keep = keep;
  }

  /** For the network devices of a VM, in this order. */
  get taps(): readonly string[] {
    return this.#taps;
  }

  /** Names of the interfaces that an engine has made until now. */
  names(): string[] {
    return readInterfaces(this.#socket, TAP_NAME).map(({ name }) => name);
  }

  /** What `connect` makes of them, as a text that changes with it. */
  describe(): string {
    const found = readInterfaces(this.#socket, TAP_NAME).map(({ routes, ...from }) => {
      // Others come with the addresses, and the kernel's own of IPv6 later than these.
      const messages = sameInterface(0, { ...from, routes: routes.filter(({ gateway }) => gateway !== undefined) });
      return [from.name, ...messages.map((message) => message.toString("hex"))];
    });
    return JSON.stringify(found);
  }

  /** Makes as many TAP interfaces as a VM is to have; engines come later. Throws HostError where there can be none. */
  prepare(count: number): void {
    while (this.#taps.length < Math.min(count, MAX_INTERFACES)) {
      const tap = `vmlet${String(this.#taps.length)}`;
      this.#keep({ taps: [...this.#taps, tap], redirected: this.#redirected });
      makeTap(tap);
      this.#undo.push(() => removeTap(tap));
      configureTap({ name: tap });
      this.#taps.push(tap);
    }
  }

  /**
   * Connects what there is. With `hasRelay` the first TAP interface has RELAY_ADDRESS, which the guest reaches. Throws
   * HostError if there are more than `taps`, SystemCallError or HostError where the kernel refuses.
   */
  connect({ hasRelay = false } = {}): ConnectedInterface[] {
    const found = readInterfaces(this.#socket, TAP_NAME);
    if (found.length > this.#taps.length) {
      const names = found.map(({ name }) => name).join(", ");
      throw new HostError(`${String(found.length)} interfaces (${names}): a VM has up to ${String(MAX_INTERFACES)}`);
    }
    return found.map((from, at) => this.#connect(from, this.#taps[at] ?? "", hasRelay && at === 0));
  }

  /** The VM must have ended. What a killed process leaves goes with the namespace, or is taken over by the next. */
  close(): void {
    for (const step of this.#undo.splice(0).reverse()) step();
  }

  #connect(from: NetworkInterface, tap: string, isRelay: boolean): ConnectedInterface {
    const hostAddress = { address: RELAY_ADDRESS, prefixLength: RELAY_PREFIX };
    configureTap({ name: tap, mtu: from.mtu, ...(isRelay ? { hostAddress } : {}) });
    const tapIndex = readInterfaces(this.#socket, /^$/).find(({ name }) => name === tap)?.index ?? 0;
    this.#undo.push(() => removeRedirect(this.#socket, from.index));
    this.#redirected.push(from.index);
    this.#keep({ taps: this.#taps, redirected: this.#redirected });
    redirect(this.#socket, tapIndex, from.index, isRelay ? addressBytes(RELAY_ADDRESS) : undefined);
    redirect(this.#socket, from.index, tapIndex);
    return { name: from.name, tap, messages: (index) => sameInterface(index, from, isRelay ? [relayAddress] : []) };
  }
}

function makeTap(name: string): void {
  try {
    makePersistentTap(name);
  } catch (error) {
    const { cause } = error as Error;
    if (!(cause instanceof SystemCallError) || cause.errnoName !== "EBUSY") throw error;
    const cure = "give each container a network of its own";
    throw new HostError("the network namespace is that of another VM, which has its interfaces", {
      cause: error,
      cure,
    });
  }
}

function addressBytes(address: string): Uint8Array {
  return Uint8Array.from(address.split(".").map(Number));
}
