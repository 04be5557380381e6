// A disk of parts for QEMU, which knows nothing of such lists, but of disks in several files: VMware's "Virtual Disk Format
// 1.1", a description with flat extents.
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import type { DiskFormat } from "../config/disks.js";
import { DiskError } from "../errors.js";
import { readPartsList } from "../virtio/backends/disk-file.js";

const SECTOR = 512;
/** QEMU reads no longer path, and none with these characters. */
const MAX_PATH = 511;
const NOT_IN_PATHS = /["\r\n]/;

/** A file that QEMU takes for the disk, and its format there. `folder`: the lab's own. Throws DiskError. */
export function emulatedDisk(
  { path, format }: { readonly path: string; readonly format?: DiskFormat },
  index: number,
  folder: string,
): { readonly path: string; readonly format: "raw" | "vmdk" } {
  if (format !== "parts") return { path, format: "raw" };
  const extents = readPartsList(path).map((part) => {
    if (part.bytes % SECTOR !== 0 || part.path.length > MAX_PATH || NOT_IN_PATHS.test(part.path)) {
      throw new DiskError(`${path}: its part ${part.path} cannot be in a disk of the lab`, {
        cure: `parts are whole sectors of ${String(SECTOR)} bytes there, with paths of ${String(MAX_PATH)} bytes without quotes`,
      });
    }
    return `RW ${String(part.bytes / SECTOR)} FLAT "${part.path}" 0\n`;
  });
  const description = join(folder, `disk${String(index)}.vmdk`);
  // No empty line: QEMU would take the first extent twice.
  const header = 'version=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType="twoGbMaxExtentFlat"\n';
  writeFileSync(description, `# Disk DescriptorFile\n${header}${extents.join("")}`);
  return { path: description, format: "vmdk" };
}
