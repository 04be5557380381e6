// Resolved socket device -> listening Unix socket -> socket device.
import { VsockDevice } from "../../../devices/virtio/vsock/device.js";
import { UnixVsock } from "../backends/vsock-unix.js";
import type { DeviceOpener } from "../device-host.js";

const NAME = "vsock0";

export const attachVsock: DeviceOpener = ({ vsock }, undo) => {
  if (vsock?.path === undefined) return [];
  const { cid: guestCid, path } = vsock;
  // The log exists only with the VM; nobody connects before.
  let report: (line: string) => void = () => undefined;
  const backend = UnixVsock.listen(path, (line) => report(`${NAME}: ${line}`));
  // The socket file is gone when this returns; connections end as the event loop turns, or with the process.
  undo(() => void backend.close());
  return [
    {
      name: NAME,
      hearsHost: true,
      create: (services) => {
        report = services.report;
        backend.guard = services.guard;
        return new VsockDevice({ name: NAME, backend, guestCid, loop: services.loop });
      },
    },
  ];
};
