// The frame by which a machine tells a network which address it has: an ARP request for its own. RFC 5227 §3.
import { USER_NET_GUEST } from "../../config/user-net.js";

const BROADCAST = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
const ETHERTYPE_ARP = [0x08, 0x06];
/** Ethernet and IPv4 with the lengths of their addresses, a request. */
const REQUEST = [0x00, 0x01, 0x08, 0x00, 6, 4, 0x00, 0x01];

/** Of the guest of a network in user mode. */
export function arpAnnouncement(mac: Uint8Array): Buffer {
  const address = USER_NET_GUEST.split(".").map(Number);
  const target = [0, 0, 0, 0, 0, 0];
  return Buffer.from([...BROADCAST, ...mac, ...ETHERTYPE_ARP, ...REQUEST, ...mac, ...address, ...target, ...address]);
}
