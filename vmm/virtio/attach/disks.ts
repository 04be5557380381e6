// Resolved disks -> open files -> block devices.
import { BlockDevice } from "../../../devices/virtio/block/device.js";
import { closeDiskFile, openDiskFile, type DiskFile } from "../backends/disk-file.js";
import { checkDiskIdentity, diskIdentity } from "../backends/disk-identity.js";
import { lockDisk, unlockDisk } from "../backends/disk-lock.js";
import { FileDisk } from "../backends/file-disk.js";
import { PartsDisk } from "../backends/parts-disk.js";
import { diskName, type ResolvedDisk } from "../../config/disks.js";
import type { DeviceFactory, DeviceOpener } from "../device-host.js";
import { DiskError } from "../../errors.js";

/** Opens every disk, or none: throws one DiskError about all that cannot be a disk. */
export function openDisks(disks: readonly ResolvedDisk[]): DiskFile[] {
  const files: DiskFile[] = [];
  const failures: DiskError[] = [];
  for (const { path, isReadonly, format, blockSize, lock } of disks) {
    try {
      files.push(openDiskFile({ path, isReadonly, format, blockSize, isLocked: lock }));
    } catch (error) {
      if (!(error instanceof DiskError)) throw error;
      failures.push(error);
    }
  }
  const [first, ...more] = failures;
  if (first === undefined) return files;
  for (const file of files) closeDiskFile(file);
  if (more.length === 0) throw first;
  const cures = new Set(failures.flatMap(({ cure }) => cure ?? []));
  throw new DiskError(failures.map(({ message }) => message).join("\n"), {
    cause: first.cause,
    cure: cures.size === 0 ? undefined : [...cures].join("; "),
  });
}

export const attachDisks: DeviceOpener = ({ disks }, undo) => {
  const files = openDisks(disks);
  return disks.flatMap((disk, index) => {
    const file = files[index];
    return file === undefined ? [] : attachDisk(index, disk, file, undo);
  });
};

/** The device of disk `index`, over its open file. */
function attachDisk(
  index: number,
  disk: ResolvedDisk,
  file: DiskFile,
  undo: (close: () => void) => void,
): DeviceFactory {
  const name = diskName(index);
  let close = (): void => closeDiskFile(file);
  undo(() => close());
  return {
    name,
    identity: () => diskIdentity(file),
    checkIdentity: (saved) => {
      checkDiskIdentity(file, saved);
    },
    letGo: () => {
      if (disk.lock) for (const { path, fd } of lockedFiles(file)) unlockDisk(path, fd);
    },
    takeBack: () => {
      if (disk.lock) for (const { path, fd } of lockedFiles(file)) lockDisk(path, fd, disk.isReadonly);
    },
    create: ({ memory, loop, guard, isMainPhase, report }) => {
      const Backend = file.parts === undefined ? FileDisk : PartsDisk;
      const backend = new Backend(file, memory, isMainPhase, guard);
      close = () => backend.close();
      return new BlockDevice({
        name,
        backend,
        id: disk.id,
        blockSize: disk.blockSize,
        cache: disk.cache,
        rateLimiter: disk.rateLimiter,
        loop,
        report,
      });
    },
  };
}

/** Whom others must leave alone: the file, or all that it is made of. */
function lockedFiles(file: DiskFile): readonly DiskFile[] {
  return file.parts ?? [file];
}
