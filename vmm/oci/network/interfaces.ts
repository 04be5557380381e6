// What an engine has set up in this process's network namespace: its interfaces with their addresses and routes.
import {
  AF_INET,
  AF_INET6,
  AF_UNSPEC,
  RTM_GETADDR,
  RTM_GETLINK,
  RTM_GETROUTE,
  addAddress,
  addRoute,
  readAddress,
  readLink,
  readRoute,
  setUpLink,
  type InterfaceAddress,
  type InterfaceRoute,
  type Link,
} from "../../host/rtnetlink.js";
import type { RouteSocket } from "../../sys/netlink.js";

const ARPHRD_ETHER = 1;

export interface NetworkInterface extends Link {
  readonly addresses: readonly InterfaceAddress[];
  readonly routes: readonly InterfaceRoute[];
}

/** Of the kind of Ethernet, that are up, in the order in which they were made; `but` names those that are ours. */
export function readInterfaces(socket: RouteSocket, but: RegExp): NetworkInterface[] {
  const family = (value: number, length: number): Buffer => {
    const body = Buffer.alloc(length);
    body.writeUInt8(value, 0);
    return body;
  };
  const links = socket.dump(RTM_GETLINK, family(AF_UNSPEC, 16), "RTM_GETLINK").map(readLink);
  const isIp = (entry: { family: number }): boolean => entry.family === AF_INET || entry.family === AF_INET6;
  const addresses = socket.dump(RTM_GETADDR, family(AF_UNSPEC, 8), "RTM_GETADDR").map(readAddress).filter(isIp);
  const routes = socket
    .dump(RTM_GETROUTE, family(AF_UNSPEC, 12), "RTM_GETROUTE")
    .map(readRoute)
    .filter((route) => route !== undefined)
    .filter(isIp);
  return links
    .filter((link) => link.hardware === ARPHRD_ETHER && link.isUp && !but.test(link.name))
    .sort((a, b) => a.index - b.index)
    .map((link) => ({
      ...link,
      addresses: addresses.filter(({ index }) => index === link.index),
      routes: routes.filter(({ index }) => index === link.index),
    }));
}

/** The messages that make the guest's interface of number `index` what `from` is here. */
export function sameInterface(index: number, from: NetworkInterface, more: readonly InterfaceAddress[] = []): Buffer[] {
  // The kernel gives each interface its link-local address itself, from the hardware address.
  const isOwn = ({ family, address }: InterfaceAddress): boolean =>
    family === AF_INET6 && address[0] === 0xfe && ((address[1] ?? 0) & 0xc0) === 0x80;
  const addresses = [...from.addresses.filter((address) => !isOwn(address)), ...more];
  // A gateway must be reachable before a route by it is taken.
  const routes = [...from.routes].sort((a, b) => Number(a.gateway !== undefined) - Number(b.gateway !== undefined));
  return [
    ...setUpLink(index, { mac: from.mac, mtu: from.mtu }),
    ...addresses.map((address) => addAddress(index, address)),
    ...routes.map((route) => addRoute(index, route)),
  ];
}
