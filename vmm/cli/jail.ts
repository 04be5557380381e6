// What --jail does not go with yet, said before anything is made; and the last step before the guest runs. Only who asks for the jail
// pays for the code.
import type { ResolvedConfig } from "../config/types.js";
import { acceleratorKind, hostFacts } from "../host/facts.js";
import type { JailMode } from "../config/jail-modes.js";
import { sealVm } from "../machine/seal.js";
import { isTerminal } from "../sys/files.js";
import type { BootOptions } from "./arguments.js";
import { openWhole, type WholeFile } from "./report.js";
import { UsageError } from "./usage-error.js";

const STDIN = 0;

/** Throws UsageError. Each of these opens files, removes a socket's file or ends another program while the guest runs. */
export function checkJail(options: BootOptions, config: ResolvedConfig, isInLab: boolean): void {
  const refused: readonly (readonly [boolean, string])[] = [
    [isInLab, "the lab (--accel)"],
    [options.control !== undefined, "--control"],
    [config.vsock?.path !== undefined, "--vsock path="],
  ];
  const found = refused.filter(([isGiven]) => isGiven).map(([, option]) => option);
  if (found.length > 0) throw new UsageError(`vmlet boot: --jail ${options.jail} does not go with ${found.join(", ")}`);
}

/** Opens what the run will need, and seals the process: from now on it opens nothing. The result is the report's file. */
export async function closeJail(
  mode: Exclude<JailMode, "off">,
  config: ResolvedConfig,
  report: string | undefined,
): Promise<WholeFile | undefined> {
  // Made when it is first asked for, by opening the terminal once more.
  if (isTerminal(STDIN)) process.stdin.pause();
  let file: WholeFile | undefined;
  if (report !== undefined) {
    acceleratorKind();
    hostFacts();
    file = openWhole("--report", report);
  }
  await sealVm(mode, config);
  return file;
}
