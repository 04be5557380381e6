// Resolved shared folders -> servers that run -> file system devices.
import { FsDevice } from "../../../devices/virtio/fs/device.js";
import { shareName, type ResolvedShare } from "../../config/shares.js";
import { SharedFolder } from "../backends/shared-folder.js";
import type { VirtiofsdFolder } from "../backends/virtiofsd-command.js";
import { endVirtiofsd, findFolders, StartingVirtiofsd } from "../backends/virtiofsd.js";
import type { DeviceFactory, DeviceOpener } from "../device-host.js";

export const attachShares: DeviceOpener = ({ shares }, undo) => {
  // All of them before the first server starts; and all servers start at once, beside whatever else a VM takes.
  const folders = findFolders(shares);
  return shares.flatMap((share, index) => {
    const folder = folders[index];
    return folder === undefined ? [] : attachShare(share, folder, shareName(index), undo);
  });
};

function attachShare(
  share: ResolvedShare,
  folder: VirtiofsdFolder,
  name: string,
  undo: (close: () => void) => void,
): DeviceFactory {
  const starting = new StartingVirtiofsd(folder, share.isJournaled);
  let close = (): void => {
    starting.cancel();
  };
  undo(() => close());
  return {
    name,
    sharesMemory: true,
    create: ({ memory, events, guard, report }) => {
      const server = starting.ready();
      close = () => endVirtiofsd(server);
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
}
