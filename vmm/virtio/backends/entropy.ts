// The host's random generator for the entropy device: Node's, which is OpenSSL's, seeded by the kernel.
import { randomFillSync } from "node:crypto";
import type { EntropySource } from "../../../devices/virtio/rng/backend.js";

export const hostEntropy: EntropySource = {
  fill(bytes) {
    randomFillSync(bytes);
  },
};
