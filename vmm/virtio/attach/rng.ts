// The entropy device over the host's generator.
import { RngDevice } from "../../../devices/virtio/rng/device.js";
import { hostEntropy } from "../backends/entropy.js";
import type { DeviceOpener } from "../device-host.js";

const NAME = "rng0";

export const attachRng: DeviceOpener = ({ rng }) =>
  rng ? [{ name: NAME, create: ({ loop }) => new RngDevice({ name: NAME, source: hostEntropy, loop }) }] : [];
