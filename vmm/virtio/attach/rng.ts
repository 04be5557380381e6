// The entropy device over the host's generator.
import { RngDevice } from "../../../devices/virtio/rng/device.js";
import { hostEntropy } from "../backends/entropy.js";
import type { DeviceOpener } from "../device-host.js";

const NAME = "rng0";

export const attachRng: DeviceOpener = ({ rng, rngRateLimiter: rateLimiter }) =>
  rng
    ? [
        {
          name: NAME,
          create: ({ loop, expose }) => {
            const device = new RngDevice({ name: NAME, source: hostEntropy, rateLimiter, loop });
            expose({ rng: device });
            return device;
          },
        },
      ]
    : [];
