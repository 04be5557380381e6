// What a VM's devices ask of the kernel while its guest runs, besides what every VM does: a process is left with the requests of the
// devices that it has.
import { hasToSeeFrames } from "../config/nets.js";
import type { ResolvedConfig } from "../config/types.js";

export interface Needs {
  /** An interface of the host. */
  readonly tap: boolean;
  /** Queues that the host's kernel may serve. */
  readonly vhost: boolean;
  /** Programs that may serve queues: they hear of it over a socket each, and this process hears of their end. */
  readonly helpers: boolean;
  /** Interrupts by messages that go past this process. */
  readonly messages: boolean;
  /** Devices of the host. */
  readonly vfio: boolean;
  /** Other processes connect to this one, and may have its guest saved. */
  readonly listens: boolean;
  /** Programs of the host connect to this process for the guest, or are connected to. */
  readonly sockets: boolean;
}

/** Of a VM without devices that need more. */
export const NO_NEEDS: Needs = {
  ...{ tap: false, vhost: false, helpers: false, messages: false, vfio: false },
  ...{ listens: false, sockets: false },
};

export function needsOf({ nets, pci, shares, vfio, vsock }: ResolvedConfig, listens: boolean): Needs {
  const direct = nets.filter((net) => net.vhost !== "off" && !hasToSeeFrames(net));
  const vhost = direct.some(({ user }) => user === undefined) || (vsock !== undefined && vsock.path === undefined);
  const helpers = shares.length > 0 || direct.some(({ user }) => user !== undefined);
  return {
    tap: nets.some(({ user }) => user === undefined),
    vhost,
    helpers,
    messages: pci && (vhost || helpers || vfio.length > 0),
    vfio: vfio.length > 0,
    listens,
    sockets: vsock?.path !== undefined,
  };
}
