// The memory of the command's channel: a slot of its own in the MMIO hole, which is RAM for the guest's user
// programs and no RAM for its kernel, so that /dev/mem maps it. devices/pseudo/command-channel.ts has the layout.
import { CHANNEL_BYTES } from "../../devices/pseudo/command-channel.js";
import { mmapAnonymous, mmapPrivateFile, munmap, viewMemory } from "../sys/memory.js";
import type { MemoryRegion } from "./guest-memory.js";
import { COMMAND_CHANNEL_GPA } from "./layout.js";

export class CommandPages {
  readonly region: MemoryRegion;
  readonly view: ArrayBuffer;

  private constructor(hva: number) {
    this.region = { gpa: COMMAND_CHANNEL_GPA, size: CHANNEL_BYTES, hva };
    // SAFETY: as many bytes as are mapped; unmap() is for when the VM has let go of its channel.
    this.view = viewMemory(hva, CHANNEL_BYTES);
  }

  static map(): CommandPages {
    return new CommandPages(mmapAnonymous(CHANNEL_BYTES));
  }

  /** With the content of a file from `offset` on. */
  static mapFile(fd: number, offset: number): CommandPages {
    return new CommandPages(mmapPrivateFile(fd, CHANNEL_BYTES, offset));
  }

  unmap(): void {
    munmap(this.region.hva, this.region.size);
  }
}
