// What the package's own kernels cannot unpack: they know one compression, each more would make them larger
// for all others. guest/kernel/base.config, CONFIG_RD_GZIP.
import { KernelImageError } from "../errors.js";
import { conversionOf, kindOf } from "../host/file-kinds.js";
import { shellWord } from "../host/shell-word.js";
import { FileImage } from "../x86/file-image.js";

/** Throws KernelImageError for an initramfs that only another kernel can use. */
export function checkOwnInitrd(path: string): void {
  const image = FileImage.open(path);
  try {
    const kind = kindOf(image);
    if (kind === undefined || kind.name === "compressed with gzip") return;
    if ("is" in kind.role && kind.role.is === "file system") {
      const spec = shellWord(`path=${path.replaceAll(",", ",,")},root`);
      throw new KernelImageError(`${path}: ${kind.name}, which vmlet's own kernel does not take for an initramfs`, {
        cure: `attach it as the root disk: --disk ${spec}`,
      });
    }
    if (!("decompress" in kind.role)) return;
    const conversion = conversionOf(kind, path, ".cpio");
    throw new KernelImageError(`${path}: ${kind.name}; vmlet's own kernel unpacks gzip alone`, {
      cure: `unpack it: ${conversion?.command ?? ""}; or bring the kernel that it is for: --kernel`,
    });
  } finally {
    image.close();
  }
}
