// Resolved network devices -> open TAP interfaces -> network devices.
import { randomFillSync } from "node:crypto";
import { closeSync } from "node:fs";
import { NetDevice } from "../../devices/virtio/net/device.js";
import { TapBackend } from "../backends/tap.js";
import { openTap } from "../backends/tap-interface.js";
import type { ResolvedNet } from "../config/nets.js";
import type { DeviceFactory, DeviceOpener } from "../device-host.js";

/** First byte of an address: for one interface, and given out locally. IEEE 802, "U/L" and "I/G" bits. */
const LOCAL_UNICAST = 0x02;

export const attachNets: DeviceOpener = ({ nets }, undo) => nets.map((net, index) => attachNet(net, index, undo));

function attachNet(net: ResolvedNet, index: number, undo: (close: () => void) => void): DeviceFactory {
  const { mtu, rateLimiter } = net;
  const tap = openTap({ name: net.tap, mtu, hostAddress: net.hostAddress });
  let close = (): void => closeSync(tap.fd);
  undo(() => close());
  const name = `net${String(index)}`;
  return {
    name,
    hearsHost: true,
    create: ({ memory, loop, report }) => {
      const backend = new TapBackend(tap, memory);
      close = () => backend.close();
      const mac = net.mac ?? randomMac();
      return new NetDevice({
        name,
        backend,
        mac,
        mtu,
        rxRateLimiter: rateLimiter,
        txRateLimiter: rateLimiter,
        loop,
        report,
      });
    },
  };
}

/** VMs on one bridge must differ, and need not be known again. */
function randomMac(): Uint8Array {
  const mac = randomFillSync(new Uint8Array(6));
  mac[0] = LOCAL_UNICAST;
  return mac;
}
