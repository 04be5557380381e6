// Whether a file is a raw disk image, or only holds a disk. A guest may write whatever it likes to its
// disk, the first bytes of another format included: that must neither lock it out of its own disk
// for ever nor lead its owner to convert the file, which can make a program read others of this
// host. Hence the way out, format=raw, and the care in the advice.
import { DiskError } from "../../errors.js";
import { conversionOf, kindOf, type FileKind, type KindSource } from "../../host/file-kinds.js";
import { shellWord } from "../../host/shell-word.js";

/** Throws DiskError for what is of another format, and would be garbage as a raw disk. */
export function checkIsRaw(path: string, source: KindSource, isReadonly: boolean): void {
  const kind = kindOf(source);
  if (kind === undefined) return;
  const asRaw = "if it is the raw disk of a guest that has written this there, say so: format=raw";
  if ("is" in kind.role) {
    if (kind.role.is !== "disc" || isReadonly) return;
    throw new DiskError(`${path}: ${kind.name}, which nobody writes to`, {
      cure: `attach it readonly; or, ${asRaw}`,
    });
  }
  // A tar archive on a disk is how some hand files to a guest: its size fits, and tar reads it there.
  if (kind.name === "a tar archive" && !isAppliance(source)) return;
  const conversion = conversionOf(kind, path, ".raw");
  const convert = conversion === undefined ? "" : `${conversion.command}${next(kind, conversion.result)}`;
  const others = otherFiles(kind, source);
  throw new DiskError(
    `${path}: ${kind.name}, not a raw disk image${others === undefined ? "" : `; it reads from ${others}`}`,
    {
      cure:
        others === undefined
          ? `${convert}; or, ${asRaw}`
          : `${asRaw}; only if you know who has made the image: ${convert}`,
    },
  );
}

/** What to do with the result. */
function next({ role }: FileKind, result: string): string {
  if ("diskFormat" in role) return `, then --disk ${shellWord(`path=${result.replaceAll(",", ",,")}`)}`;
  return `, then attach ${"unpack" in role ? "the image in " : ""}${shellWord(result)}`;
}

/** An OVA: a virtual machine's description, then its disks. */
function isAppliance(source: KindSource): boolean {
  const name = Buffer.from(source.read(0, 100)).toString("latin1").replace(/\0.*$/s, "");
  return name.toLowerCase().endsWith(".ovf");
}

/** Whatever else of this host a converter would read, as the image asks it to; undefined if nothing. */
function otherFiles({ role }: FileKind, source: KindSource): string | undefined {
  if (!("diskFormat" in role)) return undefined;
  const head = source.read(0, 512);
  const data = new DataView(head.buffer, head.byteOffset, head.byteLength);
  switch (role.diskFormat) {
    case "qcow":
    case "qcow2": {
      if (head.length < 80) return undefined;
      // backing_file_offset, backing_file_size; incompatible_features of version 3, bit 2: external data file.
      const offset = Number(data.getBigUint64(8));
      const length = Math.min(data.getUint32(16), 1023);
      if (offset > 0 && offset < source.size) {
        // A guest may have written it, and what is shown may reach a terminal.
        return `"${Buffer.from(source.read(offset, length))
          .toString("latin1")
          .replace(/[^\x20-\x7e]/g, "?")}"`;
      }
      return data.getUint32(4) >= 3 && (data.getUint32(76) & 4) !== 0 ? "another file" : undefined;
    }
    case "qed":
      // features, bit 0: a backing file.
      return head.length >= 24 && (data.getUint32(16, true) & 1) !== 0 ? "another file" : undefined;
    case "vmdk":
      // Its description names the files that it consists of, and may be anywhere.
      return "the files that it names";
    case "vpc":
      // disk_type of the footer: differencing.
      return head.length >= 64 && data.getUint32(60) === 4 ? "another file" : undefined;
    case "vdi":
      // Image type: differencing.
      return head.length >= 80 && data.getUint32(76, true) === 4 ? "another file" : undefined;
    case "vhdx":
      return "its parent, if it has one";
    default:
      return undefined;
  }
}
