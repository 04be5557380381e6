// What comes in at one interface goes out at another, by the kernel alone: an ingress queueing discipline with a filter that
// matches all and redirects. tc(8), tc-mirred(8); numbers of linux/pkt_sched.h, pkt_cls.h, tc_act/tc_mirred.h.
import { SystemCallError } from "../../errors.js";
import { NLM_F_CREATE, NLM_F_REPLACE, attribute, message, text, u32 } from "../../host/rtnetlink.js";
import { ENODEV, EINVAL } from "../../sys/errno.js";
import type { RouteSocket } from "../../sys/netlink.js";

const RTM_NEWQDISC = 36;
const RTM_DELQDISC = 37;
const RTM_NEWTFILTER = 44;
const ENOENT = 2;

const TC_H_INGRESS = 0xffff_fff1;
/** What tc writes as "ffff:". */
const INGRESS_HANDLE = 0xffff_0000;
const ETH_P_IP = 0x0800;
const ETH_P_ARP = 0x0806;
const ETH_P_ALL = 0x0003;

const TCA_KIND = 1;
const TCA_OPTIONS = 2;
const TCA_U32_CLASSID = 1;
const TCA_U32_SEL = 5;
const TCA_U32_ACT = 7;
const TC_U32_TERMINAL = 1;
const TCA_ACT_KIND = 1;
const TCA_ACT_OPTIONS = 2;
const TCA_MIRRED_PARMS = 2;
const TCA_EGRESS_REDIR = 1;
const TC_ACT_STOLEN = 4;

/** struct tcmsg. */
function trafficControl(index: number, handle: number, parent: number, info: number): Buffer {
  const body = Buffer.alloc(20);
  body.writeInt32LE(index, 4);
  body.writeUInt32LE(handle >>> 0, 8);
  body.writeUInt32LE(parent >>> 0, 12);
  body.writeUInt32LE(info >>> 0, 16);
  return body;
}

/** struct tc_u32_sel with one key: the word at `offset` of the packet, under `mask`, is `value`; all in network order. */
function selector(mask: number, value: number, offset: number): Buffer {
  const bytes = Buffer.alloc(32);
  bytes.writeUInt8(TC_U32_TERMINAL, 0);
  bytes.writeUInt8(1, 2);
  bytes.writeUInt32BE(mask >>> 0, 16);
  bytes.writeUInt32BE(value >>> 0, 20);
  bytes.writeInt32LE(offset, 24);
  return bytes;
}

function filter(index: number, priority: number, protocol: number, options: readonly Buffer[]): Buffer {
  const networkOrder = ((protocol & 0xff) << 8) | (protocol >> 8);
  const body = trafficControl(index, 0, INGRESS_HANDLE, ((priority << 16) | networkOrder) >>> 0);
  return message(RTM_NEWTFILTER, NLM_F_CREATE | NLM_F_REPLACE, body, [
    attribute(TCA_KIND, text("u32")),
    attribute(TCA_OPTIONS, Buffer.concat(options)),
  ]);
}

/** struct tc_mirred, as the only action of a filter. */
function redirectTo(index: number): Buffer {
  const parameters = Buffer.alloc(28);
  parameters.writeInt32LE(TC_ACT_STOLEN, 8);
  parameters.writeInt32LE(TCA_EGRESS_REDIR, 20);
  parameters.writeUInt32LE(index, 24);
  const action = Buffer.concat([
    attribute(TCA_ACT_KIND, text("mirred")),
    attribute(TCA_ACT_OPTIONS, attribute(TCA_MIRRED_PARMS, parameters)),
  ]);
  return attribute(TCA_U32_ACT, attribute(1, action));
}

/** Nothing of the ingress is left; one that is not there is none. */
export function removeRedirect(socket: RouteSocket, index: number): void {
  const body = trafficControl(index, INGRESS_HANDLE, TC_H_INGRESS, 0);
  try {
    socket.ask(message(RTM_DELQDISC, 0, body, [attribute(TCA_KIND, text("ingress"))]), "RTM_DELQDISC");
  } catch (error) {
    if (!(error instanceof SystemCallError) || ![ENOENT, EINVAL, ENODEV].includes(error.errno)) throw error;
  }
}

/** From now on all that comes in at `from` goes out at `to`, but for what is for the host's own `address` (IPv4, 4 bytes). */
export function redirect(socket: RouteSocket, from: number, to: number, address?: Uint8Array): void {
  removeRedirect(socket, from);
  const body = trafficControl(from, INGRESS_HANDLE, TC_H_INGRESS, 0);
  const create = message(RTM_NEWQDISC, NLM_F_CREATE | NLM_F_REPLACE, body, [attribute(TCA_KIND, text("ingress"))]);
  socket.ask(create, "RTM_NEWQDISC");
  if (address !== undefined) {
    const value = Buffer.from(address).readUInt32BE(0);
    // What is classified without an action goes on to the host's own stack.
    const passed = attribute(TCA_U32_CLASSID, u32(0x0001_0001));
    const arpTarget = attribute(TCA_U32_SEL, selector(0xffff_ffff, value, 24));
    const ipDestination = attribute(TCA_U32_SEL, selector(0xffff_ffff, value, 16));
    socket.ask(filter(from, 1, ETH_P_ARP, [passed, arpTarget]), "RTM_NEWTFILTER");
    socket.ask(filter(from, 2, ETH_P_IP, [passed, ipDestination]), "RTM_NEWTFILTER");
  }
  const all = attribute(TCA_U32_SEL, selector(0, 0, 0));
  socket.ask(filter(from, 3, ETH_P_ALL, [all, redirectTo(to)]), "RTM_NEWTFILTER");
}
