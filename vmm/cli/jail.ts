// What --jail does not go with yet, said before anything is made; and the last step before the guest runs. Only who asks for the jail
// pays for the code.
import { lstatSync, unlinkSync } from "node:fs";
import { resolve } from "node:path";
import type { ResolvedConfig } from "../config/types.js";
import { MAX_UNIX_PATH_BYTES, PORT_SUFFIX_BYTES } from "../host/unix-path.js";
import type { JailMode } from "../config/jail-modes.js";
import { Attendant } from "../jail/attendant.js";
import type { FileInbox } from "../sdk/file-inbox.js";
import { sealAttended } from "../sdk/seal-attended.js";
import { isLeftOver } from "../sys/sockets.js";
import type { BootOptions } from "./arguments.js";
import type { WholeFile } from "./report.js";
import { UsageError } from "./usage-error.js";

const MOST_VSOCK_BYTES = MAX_UNIX_PATH_BYTES - PORT_SUFFIX_BYTES;
const INBOX_SUFFIX = ".files";

/** Throws UsageError. Each of these opens files, removes a socket's file or ends another program while the guest runs. */
export function checkJail(options: BootOptions, config: ResolvedConfig, isInLab: boolean): void {
  const refused: readonly (readonly [boolean, string])[] = [
    [isInLab, "the lab (--accel)"],
    [options.control !== undefined && Attendant.own === undefined, "--control without vmlet-jailer"],
    [config.vsock?.path !== undefined && Attendant.own === undefined, "--vsock path= without vmlet-jailer"],
  ];
  const { path } = config.vsock ?? {};
  // The programs that listen for the guest are looked for from the root on.
  const bytes = path === undefined ? 0 : Buffer.byteLength(resolve(path));
  if (bytes > MOST_VSOCK_BYTES) {
    const place = `--vsock path=${path ?? ""}: ${String(bytes)} bytes with all its folders`;
    throw new UsageError(`vmlet boot: ${place}; with --jail ${options.jail} the limit is ${String(MOST_VSOCK_BYTES)}`);
  }
  const found = refused.filter(([isGiven]) => isGiven).map(([, option]) => option);
  if (found.length > 0) throw new UsageError(`vmlet boot: --jail ${options.jail} does not go with ${found.join(", ")}`);
}

/** What a sealed process has of what it can make no more. */
export interface SealedRun {
  readonly report: WholeFile | undefined;
  /** Socket files are gone when it returns. */
  end(): void;
}

/** Opens what the run will need, and seals the process: from now on it opens nothing. */
export async function closeJail(
  mode: Exclude<JailMode, "off">,
  config: ResolvedConfig,
  report: string | undefined,
  listens: boolean,
): Promise<SealedRun> {
  const file = report === undefined ? undefined : (await import("./report.js")).openReport(report);
  await sealAttended(mode, config, { listens, isBooted: true });
  return {
    report: file,
    // No record has its exit code.
    end: () => Attendant.own?.end(0),
  };
}

/**
 * Where files of snapshots come that are asked for at the control socket, beside that one and before it: who asks early is told of it, too.
 * Both go at the end. Undefined where there can be no control socket. Rejects with SystemCallError.
 */
export async function openInbox(control: string): Promise<FileInbox | undefined> {
  const place = resolve(control);
  // Whoever makes the control socket says what is wrong.
  if (lstatSync(place, { throwIfNoEntry: false }) !== undefined && !isLeftOver(place)) return undefined;
  const path = `${place}${INBOX_SUFFIX}`;
  // Before it is there: this process may be killed at any moment.
  for (const file of [place, path]) Attendant.own?.removesAtEnd(file);
  // Of one that was killed.
  if (lstatSync(path, { throwIfNoEntry: false })?.isSocket() === true) unlinkSync(path);
  return new (await import("../sdk/file-inbox.js")).FileInbox(path);
}
