// The hashes of kernel and initramfs that a saved guest has booted, for people and for those who compare snapshots: a
// restore reads neither. They are made when a snapshot is, not at every boot, of files that are as they were then.
import type { StateReader } from "../../devices/state.js";
import { VmmError } from "../errors.js";
import { keptFile } from "../host/kept-files.js";
import { FileImage, type FileStamp } from "../x86/file-image.js";
import type { BootImages } from "../machine/linux.js";
import { processSeal } from "../sys/process-seal.js";
import { newSha256 } from "../sys/node-crypto.js";

/** SHA-256 in hexadecimal; null without such a file, and for one that has been changed since. */
export interface ImageHashes {
  readonly kernel: string | null;
  readonly initrd: string | null;
}

const SHA256 = /^[0-9a-f]{64}$/;
/** By path and stamp: one process may make many snapshots. */
const known = new Map<string, string>();

export function hashImages({ kernel, initrd }: BootImages): ImageHashes {
  return { kernel: hashImage(kernel), initrd: hashImage(initrd) };
}

export function readImageHashes(state: StateReader): ImageHashes {
  state.only(["kernel", "initrd"]);
  const read = (name: string): string | null => {
    const hash = state.at(name);
    if (hash.isNull) return null;
    if (!SHA256.test(hash.asText(64))) throw hash.wrong("a SHA-256 in hexadecimal");
    return hash.asText(64);
  };
  return { kernel: read("kernel"), initrd: read("initrd") };
}

function hashImage(image: BootImages["kernel"] | undefined): string | null {
  if (image === undefined) return null;
  if ("sha256" in image) return image.sha256;
  const key = JSON.stringify([image.path, image.stamp]);
  const hash = known.get(key) ?? hashFile(image.path, image.stamp);
  if (hash !== null) known.set(key, hash);
  return hash;
}

function hashFile(path: string, stamp: FileStamp): string | null {
  const kept = keptFile(path);
  // It opens nothing any more.
  if (kept === undefined && processSeal.isSealed) return null;
  let file: FileImage | undefined;
  try {
    file = kept === undefined ? FileImage.open(path) : FileImage.of(path, kept);
    if (JSON.stringify(file.stamp) !== JSON.stringify(stamp)) return null;
    const hash = newSha256();
    for (const piece of file.chunks()) hash.update(piece);
    return hash.digest("hex");
  } catch (error) {
    // It is gone, or another: what was booted is not known any more.
    if (error instanceof VmmError) return null;
    throw error;
  } finally {
    if (kept === undefined) file?.close();
  }
}
