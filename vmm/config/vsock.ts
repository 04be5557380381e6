// Sockets between programs of the guest and of the host: what a caller may ask for.
import { VSOCK_MIN_GUEST_CID } from "../../devices/virtio/vsock/constants.js";
import { checkKeys, integerProblem } from "./checks.js";

/** A virtio socket device. */
export interface VsockConfig {
  /** The guest's context id, 3 to 2^32 - 2; only the guest sees it, so VMs may share one. */
  readonly cid: number;
  /**
   * Unix socket that vmlet makes: a program connects and writes "CONNECT <port>\n". What the guest
   * connects to is the program that listens at <path>_<port>.
   */
  readonly path: string;
}

export type ResolvedVsock = VsockConfig;

/** VMADDR_CID_ANY is 2^32 - 1. */
const MAX_CID = 2 ** 32 - 2;
const KEYS: readonly (keyof VsockConfig)[] = ["cid", "path"];

export function resolveVsock(vsock: VsockConfig | undefined, problems: string[]): ResolvedVsock | undefined {
  if (vsock === undefined) return undefined;
  checkKeys("Socket device", vsock, KEYS, problems);
  // What comes from JavaScript may lack them.
  const path = (vsock.path as string | undefined) ?? "";
  if (path === "") problems.push("Socket device: no path is given");
  if (path.includes("\0")) problems.push("Socket device: its path has a NUL character");
  const problem = integerProblem("Socket device: context id", vsock.cid, VSOCK_MIN_GUEST_CID, MAX_CID);
  if (problem !== undefined) problems.push(problem);
  return { cid: vsock.cid, path };
}
