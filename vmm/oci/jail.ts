// The seal of a container's monitor (vmm/jail), put on before its program begins: all that comes later is done by who calls the runtime,
// or by what is open.
import { openSync } from "node:fs";
import type { ResolvedConfig } from "../config/types.js";
import { NAME_SERVER_CALLS } from "../jail/allowed.js";
import type { RefusalLog } from "../jail/refusal.js";
import { isTerminal } from "../sys/files.js";
import { sealNow } from "../machine/seal.js";
import { NAME_SERVER_PORT } from "./network/name-server.js";
import type { ContainerRecord, LogFile } from "./state.js";

const STDOUT = 1;
const STDERR = 2;

/** Once all is open that the container needs. Throws HostError, SystemCallError: its program is not to begin then. */
export function sealMonitor(
  record: ContainerRecord,
  config: ResolvedConfig,
  { asksNameServer }: { readonly asksNameServer: boolean },
): void {
  // Node makes these when it is to hear of a terminal's size, by opening the terminal once more.
  if (isTerminal(STDOUT)) process.stdout.uncork();
  if (isTerminal(STDERR)) process.stderr.uncork();
  sealNow(config, {
    // Commands come to it.
    listens: true,
    more: asksNameServer ? NAME_SERVER_CALLS : [],
    tcpPort: asksNameServer ? NAME_SERVER_PORT : undefined,
    log: record.log === undefined ? undefined : refusalLog(record.log),
    // Node has made threads before this process has entered the container's.
    network: openSync("/proc/thread-self/ns/net", "r"),
  });
}

/** A line as log.ts writes it, but for the time. Undefined for a file that cannot be written to. */
function refusalLog({ path, format }: LogFile): RefusalLog | undefined {
  const [before, after] = format === "json" ? ['{"level":"error","msg":"', '"}\n'] : ['level=error msg="', '"\n'];
  try {
    return { fd: openSync(path, "a"), before, after };
  } catch {
    return undefined;
  }
}
