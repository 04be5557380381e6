// The virtio console; its host is the VM, which has the terminal.
import { ConsoleDevice } from "../../../devices/virtio/console/device.js";
import type { DeviceOpener } from "../device-host.js";

const NAME = "console0";

export const attachConsole: DeviceOpener = ({ console }) =>
  console !== "virtio"
    ? []
    : [
        {
          name: NAME,
          create: ({ consoleHost, expose }) => {
            const device = new ConsoleDevice({ name: NAME, host: consoleHost });
            expose({ console: device });
            return device;
          },
        },
      ];
