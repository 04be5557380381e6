// Resolved network devices -> their host sides, opened -> network devices.
import type { NetBackend } from "../../../devices/virtio/net/backend.js";
import { NetDevice } from "../../../devices/virtio/net/device.js";
import type { ResolvedMmds } from "../../config/mmds.js";
import type { ResolvedNet } from "../../config/nets.js";
import type { DeviceFactory, DeviceOpener, DirectEvents } from "../device-host.js";
import type { Guard } from "../guard.js";
import type { MappedGuestMemory } from "../../memory/guest-memory.js";
import { randomBytes } from "../../sys/random.js";
import type { MmdsAttacher } from "./mmds.js";

/** The host's side of one device, open and without a guest yet. */
export interface NetSide {
  /** `bytes` of a packet, told to the guest if given. */
  readonly mtu: number | undefined;
  /** Another process has the guest's memory. */
  readonly sharesMemory?: boolean;
  /** Undoes the opening; not after `createBackend`. */
  close(): void;
  /** `ended` receives the reason why the network has ended. */
  createBackend(services: {
    readonly memory: MappedGuestMemory;
    readonly ended: (why: string) => void;
    readonly guard: Guard;
    readonly events: DirectEvents;
  }): NetBackend & { close(): void };
}

/** Throws HostError. */
export type NetSideOpener = (net: ResolvedNet) => NetSide;

/** What opens each kind; those that a configuration has at least. */
export interface NetSideOpeners {
  readonly tap?: NetSideOpener;
  readonly user?: NetSideOpener;
  /** The metadata service, for a configuration with one. */
  readonly mmds?: (mmds: ResolvedMmds) => MmdsAttacher;
}

/** First byte of an address: for one interface, and given out locally. IEEE 802, "U/L" and "I/G" bits. */
const LOCAL_UNICAST = 0x02;

export function netOpener(openers: NetSideOpeners): DeviceOpener {
  return ({ nets, mmds }, undo) => {
    const attachMmds = mmds === undefined ? undefined : openers.mmds?.(mmds);
    return nets.map((net, index) => attachNet(net, index, openers, net.mmds ? attachMmds : undefined, undo));
  };
}

function attachNet(
  net: ResolvedNet,
  index: number,
  openers: NetSideOpeners,
  attachMmds: MmdsAttacher | undefined,
  undo: (close: () => void) => void,
): DeviceFactory {
  const open = net.user === undefined ? openers.tap : openers.user;
  if (open === undefined) throw new Error("Nothing opens network devices of this kind");
  const side = open(net);
  let close = (): void => side.close();
  undo(() => close());
  const name = `net${String(index)}`;
  return {
    name,
    hearsHost: true,
    sharesMemory: side.sharesMemory ?? false,
    create: (services) => {
      const { memory, loop, guard, report, expose, events } = services;
      // It may end before there is a device.
      const network: { device?: NetDevice; hasEnded?: boolean } = {};
      const backend = side.createBackend({
        memory,
        guard,
        events,
        ended: (why) => {
          report(`${name}: ${why}`);
          network.hasEnded = true;
          network.device?.setLink(false);
        },
      });
      close = () => backend.close();
      const mac = net.mac ?? randomMac();
      const device = new NetDevice({
        name,
        backend: attachMmds?.(backend, services) ?? backend,
        mac,
        isMacOwn: net.mac !== undefined,
        mtu: side.mtu,
        rxRateLimiter: net.rxRateLimiter,
        txRateLimiter: net.txRateLimiter,
        loop,
        report,
      });
      network.device = device;
      if (network.hasEnded === true) device.setLink(false);
      expose({ net: device });
      return device;
    },
  };
}

/** VMs on one bridge must have different addresses; a VM need not have the same one again. */
function randomMac(): Uint8Array {
  const mac = randomBytes(6);
  mac[0] = LOCAL_UNICAST;
  return mac;
}
