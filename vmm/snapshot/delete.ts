// Removes a snapshot, and nothing else.
import { rmdirSync } from "node:fs";
import { SnapshotError } from "../errors.js";
import { checkFolderPath } from "./arguments.js";
import { attempt, inWords, SnapshotFolder } from "./folder.js";

/**
 * The folder is gone when this returns. Throws SnapshotError, before anything is removed, for one that is not ours, that
 * holds no snapshot, or anything besides. VMs that go on from it have its memory, and do not notice.
 */
export function deleteSnapshot(path: string): void {
  const folder = SnapshotFolder.takeExisting(checkFolderPath(path));
  try {
    // The state file first: without it there is nothing to restore.
    const files = folder.files();
    if (files.length === 0) throw new SnapshotError(`${path}: holds no snapshot`);
    for (const name of files) folder.remove(name);
    attempt(path, () => {
      rmdirSync(path);
    });
  } catch (error) {
    throw inWords(path, error);
  } finally {
    folder.close();
  }
}
