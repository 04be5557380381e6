// Resolved disks -> open files -> block devices.
import { BlockDevice } from "../../../devices/virtio/block/device.js";
import {
  closeDiskFile,
  openDiskFile,
  reopenDiskFile,
  type DiskFile,
  type DiskFileOptions,
} from "../backends/disk-file.js";
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
  for (const disk of disks) {
    try {
      files.push(openDiskFile(optionsOf(disk)));
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
  opened: DiskFile,
  undo: (close: () => void) => void,
): DeviceFactory {
  const name = diskName(index);
  let file = opened;
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
    create: ({ memory, loop, guard, isMainPhase, report, expose }) => {
      const backends = new Set<FileDisk | PartsDisk>();
      close = () => {
        for (const backend of backends) backend.close();
        backends.clear();
      };
      const backendOf = (of: DiskFile): FileDisk | PartsDisk => {
        const Backend = of.parts === undefined ? FileDisk : PartsDisk;
        const backend = new Backend(of, memory, isMainPhase, guard);
        backends.add(backend);
        return backend;
      };
      let backend = backendOf(file);
      const device = new BlockDevice({
        name,
        backend,
        id: disk.id,
        blockSize: disk.blockSize,
        cache: disk.cache,
        rateLimiter: disk.rateLimiter,
        loop,
        report,
      });
      expose({
        disk: {
          updateRateLimiter: (config) => {
            device.updateRateLimiter(config);
          },
          replaceFile: (path) => {
            const old = backend;
            file = reopenDiskFile(file, { ...optionsOf(disk), path });
            backend = backendOf(file);
            const finished = (): void => {
              // The VM may have been closed meanwhile, and all disks with it.
              if (!backends.has(old)) return;
              flushAndClose(old, (error) => {
                const isOpen = backends.delete(old);
                if (isOpen && error !== 0) report(`${name}: the file before this one: ${old.explain(error)}`);
              });
            };
            guard(() => {
              device.replaceBackend(backend, finished);
            });
          },
        },
      });
      return device;
    },
  };
}

/** What the guest has written there is not flushed by what it flushes from here on. */
function flushAndClose(disk: FileDisk | PartsDisk, closed: (error: number) => void): void {
  const done = (error: number): void => {
    disk.close();
    closed(error);
  };
  if (disk.isReadonly) done(0);
  else disk.flushLater(done);
}

function optionsOf({ path, isReadonly, format, blockSize, lock }: ResolvedDisk): DiskFileOptions {
  return { path, isReadonly, format, blockSize, isLocked: lock };
}

/** Whom others must leave alone: the file, or all that it is made of. */
function lockedFiles(file: DiskFile): readonly DiskFile[] {
  return file.parts ?? [file];
}
