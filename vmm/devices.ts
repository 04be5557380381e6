// Every virtio device that a configuration asks for, in the order of the windows: opened on the
// host here, before the VM exists; device-host.ts makes the devices themselves.
import { closeSync } from "node:fs";
import type { ResolvedConfig } from "./config/types.js";
import type { DeviceFactory } from "./device-host.js";
import { diskFactory, openDisks } from "./disks.js";

/** `undo` takes what closes the host's side again. Throws what the user has to hear about a disk. */
export function openDevices(config: ResolvedConfig, undo: (close: () => void) => void): DeviceFactory[] {
  const files = openDisks(config.disks);
  for (const { fd } of files) {
    undo(() => {
      closeSync(fd);
    });
  }
  return config.disks.flatMap((disk, index) => {
    const file = files[index];
    return file === undefined ? [] : diskFactory(index, disk, file);
  });
}
