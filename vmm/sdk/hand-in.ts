// A snapshot of a VM in the jail, from the outside: the folder and its files are made here, and the VM writes what it has into them.
import { closeSync } from "node:fs";
import { checkFolderPath } from "../snapshot/arguments.js";
import { newId } from "../snapshot/create.js";
import { fileNames, SnapshotFolder } from "../snapshot/folder.js";
import type { Agreement, SnapshotRequest } from "./control.js";
import { sendFiles } from "./file-inbox.js";

/**
 * `inbox`: path of the VM's socket for files; `ask` sends it the request. Rejects with SnapshotError for a folder that cannot be, and with what
 * `ask` rejects with; nothing is left then.
 */
export async function snapshotByHand(
  inbox: string,
  request: SnapshotRequest,
  ask: (request: SnapshotRequest) => Promise<Agreement>,
): Promise<Agreement> {
  const folder = SnapshotFolder.take(checkFolderPath(request.folder));
  const id = newId();
  const names = fileNames(id);
  const files = new Map<string, number>();
  try {
    const make = (name: string): number => {
      const fd = folder.make(name);
      files.set(name, fd);
      return fd;
    };
    sendFiles(inbox, id, { memory: make(names.memory), state: make(names.state) });
    const agreement = await ask({ ...request, id });
    await folder.publish(names.state, names.memory);
    folder.close();
    return agreement;
  } catch (error) {
    for (const name of files.keys()) folder.remove(name);
    folder.giveUp();
    throw error;
  } finally {
    for (const fd of files.values()) closeSync(fd);
  }
}
