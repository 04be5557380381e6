// Every virtio device that a configuration asks for, in the order of their ranges: its host side is
// opened here, before the VM exists; device-host.ts makes the devices themselves.
import { DEVICE_KINDS, countDevices, type DeviceKind } from "../config/devices.js";
import type { ResolvedConfig } from "../config/types.js";
import type { NetSideOpener } from "./attach/nets.js";
import type { DeviceFactory, DeviceOpener } from "./device-host.js";

/** What opens each kind; a configuration's kinds at least. */
export type DeviceOpeners = Readonly<Partial<Record<DeviceKind, DeviceOpener>>>;

/** `undo` receives the functions that close the host's sides. Throws an error for the user. */
export function openDevices(
  openers: DeviceOpeners,
  config: ResolvedConfig,
  undo: (close: () => void) => void,
): DeviceFactory[] {
  const counts = countDevices(config);
  return DEVICE_KINDS.filter((kind) => counts[kind] > 0).flatMap((kind) => {
    const open = openers[kind];
    if (open === undefined) throw new Error(`Nothing opens devices of kind ${kind}`);
    return open(config, undo);
  });
}

/** Loads what a configuration needs and no more: each kind costs a start milliseconds, sockets most. */
export async function loadOpeners(config: ResolvedConfig): Promise<DeviceOpeners> {
  const counts = countDevices(config);
  return {
    ...(counts.disk > 0 && { disk: (await import("./attach/disks.js")).attachDisks }),
    ...(counts.net > 0 && { net: await loadNets(config) }),
    ...(counts.vsock > 0 && { vsock: await loadVsock(config) }),
    ...(counts.console > 0 && { console: (await import("./attach/console.js")).attachConsole }),
    ...(counts.rng > 0 && { rng: (await import("./attach/rng.js")).attachRng }),
    ...(counts.balloon > 0 && { balloon: (await import("./attach/balloon.js")).attachBalloon }),
    ...(counts.share > 0 && { share: (await import("./attach/shares.js")).attachShares }),
  };
}

async function loadVsock({ vsock }: ResolvedConfig): Promise<DeviceOpener> {
  return vsock?.path === undefined
    ? (await import("./attach/vhost-vsock.js")).attachVhostVsock
    : (await import("./attach/vsock.js")).attachVsock;
}

/** A host whose passt is old loads nothing of vhost-user. */
async function loadUserSide(nets: ResolvedConfig["nets"]): Promise<NetSideOpener> {
  const { userSide } = await import("./attach/user-net.js");
  if (nets.every(({ user, vhost }) => user === undefined || vhost === "off")) return userSide();
  const { passtWithVhostUser } = await import("./backends/passt-program.js");
  const program = passtWithVhostUser();
  if (program === undefined) return userSide();
  const { openVhostUserSide } = await import("./attach/vhost-user-net.js");
  return userSide((net) => openVhostUserSide(net, program));
}

async function loadNets({ nets, mmds }: ResolvedConfig): Promise<DeviceOpener> {
  const { netOpener } = await import("./attach/nets.js");
  return netOpener({
    ...(nets.some(({ user }) => user === undefined) && { tap: (await import("./attach/tap.js")).openTapSide }),
    ...(nets.some(({ user }) => user !== undefined) && { user: await loadUserSide(nets) }),
    ...(mmds !== undefined && { mmds: (await import("./attach/mmds.js")).mmdsAttacher }),
  });
}
