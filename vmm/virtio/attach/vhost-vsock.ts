// Resolved socket device without a Unix socket -> the host kernel's vhost-vsock -> socket device.
import { closeSync } from "node:fs";
import { VhostVsockDevice } from "../../../devices/virtio/vsock/vhost-device.js";
import { openVhostVsock, VhostVsock } from "../backends/vhost-vsock.js";
import type { DeviceOpener } from "../device-host.js";

const NAME = "vsock0";

export const attachVhostVsock: DeviceOpener = ({ vsock }, undo) => {
  if (vsock === undefined) return [];
  const guestCid = vsock.cid;
  const fd = openVhostVsock(guestCid);
  let close = (): void => {
    closeSync(fd);
  };
  undo(() => close());
  return [
    {
      name: NAME,
      create: ({ memory, events, guard, loop }) => {
        const vhost = new VhostVsock(fd, { memory, events, guard });
        close = () => {
          vhost.close();
        };
        return new VhostVsockDevice({ name: NAME, vhost, guestCid, loop });
      },
    },
  ];
};
