// The interfaces of a container's network namespace become the guest's. Each gets a TAP interface beside it, and the
// kernel redirects frames between the two both ways: addresses, ports and firewall rules of the engine hold as they are.
import { AF_INET, RT_SCOPE_LINK, type InterfaceAddress } from "../../host/rtnetlink.js";
import { RouteSocket } from "../../sys/netlink.js";
import { makePersistentTap, removeTap } from "../../virtio/backends/tap-interface.js";
import { readInterfaces, sameInterface, type NetworkInterface } from "./interfaces.js";
import { redirect, removeRedirect } from "./redirect.js";

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
  /** For the VM's network device, which opens it. */
  readonly tap: string;
  readonly mac: Uint8Array;
  /** `bytes` of a packet. */
  readonly mtu: number;
  /** For the agent: they make the guest's interface with that number the same as the one of the namespace. */
  messages(index: number): Buffer[];
}

export interface ConnectedNetwork {
  readonly interfaces: readonly ConnectedInterface[];
  /** The VM must have ended. What a killed process leaves goes with the namespace, or is taken over by the next. */
  close(): void;
}

const relayAddress: Omit<InterfaceAddress, "index"> = {
  family: AF_INET,
  address: Uint8Array.from(RELAY_GUEST_ADDRESS),
  prefixLength: RELAY_PREFIX,
  scope: RT_SCOPE_LINK,
  broadcast: undefined,
};

function linkOf(socket: RouteSocket, name: string): number {
  const found = readInterfaces(socket, /^$/).find((link) => link.name === name);
  if (found === undefined) throw new RangeError(`${name} is not there`);
  return found.index;
}

/**
 * Connects what is in this process's network namespace. With `hasRelay` the first TAP interface has RELAY_ADDRESS, which
 * the guest reaches. Throws RangeError for more than MAX_INTERFACES, SystemCallError or HostError where the kernel refuses.
 */
export function connectNetwork({ hasRelay = false } = {}): ConnectedNetwork {
  const socket = new RouteSocket();
  const undo: (() => void)[] = [];
  const close = (): void => {
    for (const step of undo.splice(0).reverse()) step();
  };
  undo.push(() => socket.close());
  const connect = (from: NetworkInterface, number: number): ConnectedInterface => {
    const tap = `vmlet${String(number)}`;
    const isRelay = hasRelay && number === 0;
    const hostAddress = { address: RELAY_ADDRESS, prefixLength: RELAY_PREFIX };
    makePersistentTap({ name: tap, mtu: from.mtu, ...(isRelay ? { hostAddress } : {}) });
    undo.push(() => removeTap(tap));
    const tapIndex = linkOf(socket, tap);
    undo.push(() => removeRedirect(socket, from.index));
    redirect(socket, tapIndex, from.index, isRelay ? Uint8Array.from(RELAY_ADDRESS.split(".").map(Number)) : undefined);
    redirect(socket, from.index, tapIndex);
    const { name, mac, mtu } = from;
    const more = isRelay ? [{ ...relayAddress, index: 0 }] : [];
    return { name, tap, mac, mtu, messages: (index) => sameInterface(index, from, more) };
  };
  try {
    const found = readInterfaces(socket, TAP_NAME);
    if (found.length > MAX_INTERFACES) {
      const names = found.map(({ name }) => name).join(", ");
      throw new RangeError(`${String(found.length)} interfaces (${names}); a VM has at most ${String(MAX_INTERFACES)}`);
    }
    return { interfaces: found.map(connect), close };
  } catch (error) {
    close();
    throw error;
  }
}
