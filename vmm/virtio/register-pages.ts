// The registers of virtio-mmio devices as pages that the guest may read and not write: a read of a register is a
// load, which does not exit; a write still exits. KVM api.rst §4.35, KVM_MEM_READONLY.
import { mmapAnonymous, munmap, viewMemory } from "../sys/memory.js";
import type { MemoryRegion } from "../memory/guest-memory.js";
import { VIRTIO_MMIO_GPA, VIRTIO_MMIO_LENGTH } from "../memory/layout.js";

export class RegisterPages {
  /** What the memory slot of all of them has to be. */
  readonly region: MemoryRegion;
  readonly #view: ArrayBuffer;

  private constructor(region: MemoryRegion) {
    this.region = region;
    // SAFETY: as many bytes as are mapped; unmap() is for when no device is left that holds a view.
    this.#view = viewMemory(region.hva, region.size);
  }

  /** For `count` devices, at least one. */
  static map(count: number): RegisterPages {
    const size = count * VIRTIO_MMIO_LENGTH;
    return new RegisterPages({ gpa: VIRTIO_MMIO_GPA, size, hva: mmapAnonymous(size) });
  }

  /** The registers of device `device`. */
  words(device: number): Int32Array {
    return new Int32Array(this.#view, device * VIRTIO_MMIO_LENGTH, VIRTIO_MMIO_LENGTH / 4);
  }

  unmap(): void {
    munmap(this.region.hva, this.region.size);
  }
}
