// Sockets between programs of the guest and of the host: what a caller may ask for.
import { VSOCK_MIN_GUEST_CID } from "../../devices/virtio/vsock/constants.js";
import type { Checked } from "./check.js";
import { PATH_SCHEMA } from "./schema.js";

/** A virtio socket device. */
export interface VsockConfig {
  /** The guest's context id, 3 to 2^32 - 2. With a path only the guest sees it, so VMs may share one. */
  readonly cid: number;
  /**
   * Unix socket that vmlet makes: a program connects and writes "CONNECT <port>\n". What the guest
   * connects to is the program that listens at <path>_<port>. Without one, programs of this host and of the guest have
   * AF_VSOCK with each other, by the host kernel's /dev/vhost-vsock.
   */
  readonly path?: string | undefined;
}

export type ResolvedVsock = VsockConfig;

/** VMADDR_CID_ANY is 2^32 - 1. */
const MAX_CID = 2 ** 32 - 2;

export const VSOCK_SCHEMA = {
  type: "object",
  title: "Socket device",
  properties: {
    cid: { type: "integer", minimum: VSOCK_MIN_GUEST_CID, maximum: MAX_CID, title: "context id" },
    path: PATH_SCHEMA,
  },
  required: ["cid"],
  additionalProperties: false,
} as const;

export function resolveVsock(vsock: Checked<typeof VSOCK_SCHEMA> | undefined): ResolvedVsock | undefined {
  return vsock === undefined ? undefined : { cid: vsock.cid ?? 0, path: vsock.path };
}
