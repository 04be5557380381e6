// The seal of a process that has a VM that runs programs: what it will need is open by then, and its attendant knows what is to be done at
// its end. Only a process in the jail loads this.
import type { JailMode } from "../config/jail-modes.js";
import type { ResolvedConfig } from "../config/types.js";
import { Attendant } from "../jail/attendant.js";
import type { OutputLog } from "./output-log.js";
import { sealAttended } from "./seal-attended.js";
import type { NameLink, VmFolder } from "./state-folder.js";
import type { VmRecord } from "./vm-record.js";

export interface SealedPlaces {
  readonly config: ResolvedConfig;
  readonly record: VmRecord;
  readonly folder: VmFolder;
  readonly names: NameLink;
  readonly log: OutputLog | undefined;
}

/** The result has the attendant do what is left. Rejects with HostError, or SystemCallError. */
export async function sealPlaces(
  mode: Exclude<JailMode, "off">,
  { config, record, folder, names, log }: SealedPlaces,
): Promise<(exitCode: number, error: string | undefined) => void> {
  const attendant = Attendant.own;
  if (attendant === undefined) throw new Error("There is no attendant");
  if (record.autoRemove) {
    attendant.removesAtEnd(folder.path);
    attendant.removesLinkAtEnd(names.path, names.target);
  } else {
    attendant.writesAtEnd(folder.recordFile, { ...record, status: "exited" });
    for (const path of folder.sockets) attendant.removesAtEnd(path);
  }
  if (log !== undefined) {
    attendant.keepsLog(folder.log);
    log.turn = () => attendant.turnLog();
  }
  await sealAttended(mode, config, { listens: true, isBooted: !record.restored });
  return (exitCode, error) => {
    attendant.end(exitCode, error);
  };
}
