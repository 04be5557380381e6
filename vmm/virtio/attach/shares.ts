// Resolved shared folders -> servers that run -> file system devices.
import { FsDevice } from "../../../devices/virtio/fs/device.js";
import { shareName } from "../../config/shares.js";
import { SharedFolder } from "../backends/shared-folder.js";
import { endVirtiofsd, startVirtiofsd } from "../backends/virtiofsd.js";
import type { DeviceOpener } from "../device-host.js";

export const attachShares: DeviceOpener = ({ shares }, undo) =>
  shares.map((share, index) => {
    const name = shareName(index);
    const server = startVirtiofsd(share);
    let close = (): void => endVirtiofsd(server);
    undo(() => close());
    return {
      name,
      create: ({ memory, events, guard, report }) => {
        const backend = new SharedFolder(server, {
          memory,
          events,
          guard,
          ended: (why) => {
            report(`${name}: ${why}; the folder ${share.path} is gone for the guest`);
          },
        });
        close = () => backend.close();
        return new FsDevice({ name, tag: Buffer.from(share.tag), backend });
      },
    };
  });
