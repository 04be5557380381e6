// The host's side of a network device: a TAP interface, and the kernel's vhost-net behind it where it is wanted.
import { closeSync } from "node:fs";
import { hasToSeeFrames, type ResolvedNet } from "../../config/nets.js";
import { HostError } from "../../errors.js";
import { TapBackend } from "../backends/tap.js";
import { openTap } from "../backends/tap-interface.js";
import { openVhostNet, VhostNet } from "../backends/vhost-net.js";
import type { NetSideOpener } from "./nets.js";

export const openTapSide: NetSideOpener = (net) => {
  const { tap = "", mtu, hostAddress } = net;
  const vhostFd = openVhost(net);
  let opened: ReturnType<typeof openTap>;
  try {
    opened = openTap({ name: tap, mtu, hostAddress });
  } catch (error) {
    if (vhostFd !== undefined) closeSync(vhostFd);
    throw error;
  }
  return {
    mtu,
    close: () => {
      if (vhostFd !== undefined) closeSync(vhostFd);
      closeSync(opened.fd);
    },
    createBackend: ({ memory, ended, guard, events }) => {
      const vhost = vhostFd === undefined ? undefined : new VhostNet(vhostFd, opened, { memory, events, guard });
      return new TapBackend(opened, memory, ended, guard, undefined, vhost);
    },
  };
};

/** Throws HostError where it is asked for and not there. */
function openVhost(net: ResolvedNet): number | undefined {
  if (net.vhost === "on") return openVhostNet();
  if (net.vhost === "off" || hasToSeeFrames(net)) return undefined;
  try {
    return openVhostNet();
  } catch (error) {
    if (error instanceof HostError) return undefined;
    throw error;
  }
}
