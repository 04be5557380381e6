// The step between a VM that is built and its first instruction, for a process that is to be sealed (vmm/jail): what comes later is there.
// `on` starts as fast as a process that is not: threads begin later, from code that has been read. `strict` has all of them before,
// so that the process makes no thread either.
import type { JailMode } from "../config/jail-modes.js";
import type { ResolvedConfig } from "../config/types.js";
import { needsOf } from "../jail/needs.js";
import { sealProcess, type SealOptions } from "../jail/seal.js";
import { openThreadCode } from "./thread-code.js";

/**
 * For the process of one VM of this configuration, after everything else has been opened. The vCPU threads' program has to be a bundle's for
 * `on`. `listens`: others may connect to sockets that it has. Throws SystemCallError, or HostError where the host does not allow it: the guest is not to run then.
 */
export async function sealVm(
  mode: Exclude<JailMode, "off">,
  config: ResolvedConfig,
  { listens = false }: { readonly listens?: boolean } = {},
): Promise<void> {
  if (mode === "on") {
    sealNow(config, { listens });
    return;
  }
  const { explainStart, pool } = await import("./threads.js");
  await pool.warm(config.cpus);
  // None could begin later.
  if (pool.size < config.cpus) throw explainStart(pool.size, pool.problem);
  sealProcess("complete", needsOf(config, listens));
}

/** The same with `on`, for a process whose VM may run already: its guest is stopped by nothing but the signals that threads get. */
export function sealNow(
  config: ResolvedConfig,
  { listens = false, ...options }: SealOptions & { readonly listens?: boolean } = {},
): void {
  openThreadCode();
  sealProcess("running", needsOf(config, listens), options);
}
