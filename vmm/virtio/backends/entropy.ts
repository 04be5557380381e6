// The host's random generator for the entropy device: Node's, which is OpenSSL's, seeded by the kernel.
import type { EntropySource } from "../../../devices/virtio/rng/backend.js";
import { nodeCrypto } from "../../sys/node-crypto.js";

export const hostEntropy: EntropySource = {
  fill(bytes) {
    nodeCrypto().randomFillSync(bytes);
  },
};
