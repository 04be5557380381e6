// Guest RAM with kernel and initrd in it: the part of a VM that takes longest to make, and that needs no KVM. Who knows early
// what will be booted makes it before the rest is known.
import { statSync } from "node:fs";
import type { ResolvedConfig } from "../config/types.js";
import { HostError } from "../errors.js";
import { MappedGuestMemory } from "../memory/guest-memory.js";
import { MIB } from "../memory/layout.js";
import { closeDescriptor } from "../sys/descriptors.js";
import { sharedMemory } from "../sys/shared-memory.js";
import type { FileImage } from "../x86/file-image.js";
import { loadImages, openImages, readLater, type LinuxImages, type LoadedImages } from "./linux.js";
import { UndoStack } from "./undo-stack.js";

/** What it depends on. */
export type BootMemoryConfig = Pick<ResolvedConfig, "kernel" | "initrd" | "protocol" | "memoryMib" | "hugePages">;

export class BootMemory {
  /** Settle when kernel and initrd are there; memory and files have to stay until then. */
  readonly reads: Promise<void>[] = [];
  readonly #config: BootMemoryConfig;
  readonly #files = new UndoStack();
  #images: LinuxImages | undefined;
  #memory: MappedGuestMemory | undefined;
  #loaded: LoadedImages | undefined;

  constructor(config: BootMemoryConfig) {
    this.#config = config;
  }

  /** Throws KernelImageError or HostError. */
  open(): LinuxImages {
    return (this.#images ??= openImages(this.#config, (close) => {
      this.#files.add(close);
    }));
  }

  /**
   * `isShared`: other processes will have the memory, too. Throws KernelImageError, HostError or SystemCallError; `close` undoes
   * what has been done.
   */
  load(isShared = false): { readonly memory: MappedGuestMemory; readonly loaded: LoadedImages } {
    const images = this.open();
    const memory = (this.#memory ??= mapMemory(this.#config, isShared));
    if (this.#loaded === undefined) readLater(images, this.reads);
    const loaded = (this.#loaded ??= loadImages(this.#config, memory, images));
    // Who boots it waits for them, which may be later or never.
    void Promise.allSettled(this.reads);
    return { memory, loaded };
  }

  /** `bytes` of both files. */
  get imageBytes(): number {
    const { kernel, initrd } = this.open();
    return kernel.size + (initrd?.size ?? 0);
  }

  /** It is what that configuration boots, and the files are those that are at their paths now. */
  fits(config: BootMemoryConfig): boolean {
    const own = this.#config;
    const isSame =
      own.kernel === config.kernel &&
      own.initrd === config.initrd &&
      own.protocol === config.protocol &&
      own.memoryMib === config.memoryMib &&
      own.hugePages === config.hugePages;
    if (!isSame || this.#images === undefined) return isSame;
    const { kernel, initrd } = this.#images;
    return isAsOpened(kernel) && (initrd === undefined || isAsOpened(initrd));
  }

  closeFiles(): void {
    this.#files.run();
  }

  /** Once what is in `reads` has settled. */
  close(): void {
    this.closeFiles();
    this.#memory?.unmap();
    this.#memory = undefined;
  }

  /** Gives everything back as soon as nothing reads into it any more. */
  abandon(): void {
    void Promise.allSettled(this.reads).then(() => {
      this.close();
    });
  }
}

function isAsOpened({ path, stamp }: FileImage): boolean {
  const now = statSync(path, { bigint: true, throwIfNoEntry: false });
  return (
    now !== undefined &&
    String(now.dev) === stamp.device &&
    String(now.ino) === stamp.inode &&
    String(now.size) === stamp.size &&
    String(now.mtimeNs) === stamp.modifiedNs
  );
}

function mapHugePages(memoryMib: number): MappedGuestMemory {
  try {
    return MappedGuestMemory.mapHugePages(memoryMib * MIB);
  } catch (error) {
    const pages = String(memoryMib / 2);
    throw new HostError(`This host does not have ${pages} pages of 2 MiB free for the guest's memory`, {
      cause: error,
      cure: `reserve them: echo ${pages} | sudo tee /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages`,
    });
  }
}

function mapMemory({ memoryMib, hugePages }: BootMemoryConfig, isShared: boolean): MappedGuestMemory {
  const size = memoryMib * MIB;
  if (hugePages === "2M") return mapHugePages(memoryMib);
  if (!isShared) {
    const memory = MappedGuestMemory.map(size);
    if (hugePages === "transparent") memory.preferHugePages();
    return memory;
  }
  const fd = sharedMemory("vmlet-guest", size);
  try {
    return MappedGuestMemory.mapShared(fd, size);
  } catch (error) {
    closeDescriptor(fd);
    throw error;
  }
}
