// The last step of a process whose guest is to run in the jail: what it will need is opened, it is sealed, and its attendant takes nothing
// more. Only a process in the jail loads this.
import { resolve } from "node:path";
import type { JailMode } from "../config/jail-modes.js";
import type { ResolvedConfig } from "../config/types.js";
import { Attendant } from "../jail/attendant.js";
import { sealVm } from "../machine/seal.js";
import { isTerminal } from "../sys/files.js";
import { processSeal } from "../sys/process-seal.js";

const STDIN = 0;

export interface SealOptions {
  /** Others may connect to sockets that it has, and have the guest saved. */
  readonly listens: boolean;
  /** The guest goes on from nothing that says which processor it has seen. */
  readonly isBooted: boolean;
}

/** Rejects with SystemCallError or HostError where the host does not allow it: the guest is not to run then. */
export async function sealAttended(
  mode: Exclude<JailMode, "off">,
  config: ResolvedConfig,
  { listens, isBooted }: SealOptions,
): Promise<void> {
  // Made when it is first asked for, by opening the terminal once more.
  if (isTerminal(STDIN)) process.stdin.pause();
  if (listens) (await import("./open-for-snapshot.js")).openForSnapshot(config, { isBooted });
  if (config.vsock?.path !== undefined) settleVsock(config.vsock.path);
  await sealVm(mode, config, { listens });
  Attendant.own?.sealed();
}

/** The socket file goes at the end, and what the guest connects to is connected outside. */
function settleVsock(path: string): void {
  const attendant = Attendant.own;
  const absolute = resolve(path);
  attendant?.removesAtEnd(absolute);
  attendant?.connectsFor(absolute);
  processSeal.connection = (port) => attendant?.connection(port);
}
