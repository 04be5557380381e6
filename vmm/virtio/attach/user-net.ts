// The host's side of a network device: a network in user mode, over a stream, or past this process where that is wanted.
import { closeDescriptor } from "../../sys/descriptors.js";
import { noVhostUser } from "../backends/passt-program.js";
import { startPasst } from "../backends/passt.js";
import { StreamNet } from "../backends/stream-net.js";
import type { NetSide, NetSideOpener } from "./nets.js";
import { hasToSeeFrames, type ResolvedNet } from "../../config/nets.js";

/** `bytes` of a packet unless told otherwise: the most that passt carries, because every frame has its price. */
export const DEFAULT_USER_MTU = 65520;
export const PLAIN_USER_NET = { forwards: [], reachesHost: true };

/** `openVhostUser` answers undefined on a host without a passt that speaks it. */
export function userSide(openVhostUser?: (net: ResolvedNet) => NetSide | undefined): NetSideOpener {
  return (net) => {
    if (net.vhost === "off" || hasToSeeFrames(net)) return openStream(net);
    const side = openVhostUser?.(net);
    if (side === undefined && net.vhost === "on") throw noVhostUser();
    return side ?? openStream(net);
  };
}

function openStream({ user = PLAIN_USER_NET, mtu = DEFAULT_USER_MTU }: ResolvedNet): NetSide {
  const fd = startPasst(user, mtu);
  return {
    mtu,
    close: () => {
      closeDescriptor(fd);
    },
    createBackend: ({ memory, ended, guard }) =>
      new StreamNet(fd, memory, () => ended("passt, which was its network, has ended"), guard),
  };
}
