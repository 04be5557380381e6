// The virtio console; its host is the VM, which has the terminal.
import { ConsoleDevice } from "../../../devices/virtio/console/device.js";
import type { DeviceOpener } from "../device-host.js";

const NAME = "console0";

export const attachConsole: DeviceOpener = ({ console, cmdline }) =>
  console !== "virtio"
    ? []
    : [
        {
          name: NAME,
          create: ({ consoleHost, expose }) => {
            // On a terminal that is not the kernel's own console, Linux looks for no break.
            const hasBreak = /(^| )console=hvc0[, ]/.test(`${cmdline} `);
            const device = new ConsoleDevice({ name: NAME, host: consoleHost, hasBreak });
            expose({ console: device });
            return device;
          },
        },
      ];
