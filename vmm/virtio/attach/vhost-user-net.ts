// The host's side of a network device: a network in user mode, with passt at the guest's queues.
import type { ResolvedNet } from "../../config/nets.js";
import { passtWithVhostUser } from "../backends/passt-program.js";
import { StartingPasst } from "../backends/passt-vhost-user.js";
import { VhostUserNet } from "../backends/vhost-user-net.js";
import type { NetSide } from "./nets.js";
import { DEFAULT_USER_MTU, PLAIN_USER_NET } from "./user-net.js";

/** `program`: the path of a passt that speaks it; undefined, and so is the result, where this host has none. Throws HostError. */
export function openVhostUserSide(
  { user = PLAIN_USER_NET, mtu = DEFAULT_USER_MTU }: ResolvedNet,
  program = passtWithVhostUser(),
): NetSide | undefined {
  if (program === undefined) return undefined;
  const starting = new StartingPasst(program, user, mtu);
  return {
    mtu,
    sharesMemory: true,
    close: () => {
      starting.cancel();
    },
    createBackend: ({ ended, ...services }) => {
      const { server, features } = starting.ready();
      return new VhostUserNet(server, features, {
        ...services,
        ended: (why) => {
          ended(`its network is gone: ${why}`);
        },
      });
    },
  };
}
