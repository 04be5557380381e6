// The metadata service on a network device: one responder a device, over one document and one keeper of tokens.
import { MmdsNet } from "../../../devices/mmds/net-backend.js";
import { MmdsResponder } from "../../../devices/mmds/responder.js";
import { mmdsService } from "../../../devices/mmds/service.js";
import type { NetBackend } from "../../../devices/virtio/net/backend.js";
import type { ResolvedMmds } from "../../config/mmds.js";
import { randomBytes } from "../../sys/random.js";
import { SealedTokens } from "../backends/mmds-tokens.js";
import type { DeviceServices } from "../device-host.js";

/** Puts the service into a network. */
export type MmdsAttacher = (network: NetBackend, services: DeviceServices) => NetBackend;

export function mmdsAttacher({ version, address, imdsCompat }: ResolvedMmds): MmdsAttacher {
  let tokens: SealedTokens | undefined;
  return (network, { memory, loop, metadata }) => {
    // What one device gives out, another takes.
    tokens ??= new SealedTokens(() => loop.now());
    const source = {
      get value(): unknown {
        return metadata();
      },
    };
    const responder = new MmdsResponder({
      address: address.split(".").reduce((sum, octet) => sum * 256 + Number(octet), 0),
      answer: mmdsService({ version, imdsCompat, source, tokens }),
      random: () => Buffer.from(randomBytes(4)).readUInt32LE(),
      now: () => loop.now(),
    });
    return new MmdsNet({ network, responder, memory, loop });
  };
}
