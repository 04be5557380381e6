// How a guest gets to user space: through which initramfs, if any, and onto which root.
//   no root disk                  the initramfs is the root
//   a root disk                   the kernel mounts it and starts its init, no initramfs
//   a root disk and a COMMAND     vmlet's init mounts it, changes into it and runs the command
//   a root disk and an --initrd   that initramfs finds `root=` on the command line, as any does
import { diskName } from "../config/disks.js";
import { ConfigError } from "../errors.js";
import type { BootOptions } from "./arguments.js";
import { defaultInitrd, tinyInitrd } from "../host/guest-files.js";

type Options = Pick<BootOptions, "initrd" | "noInitrd" | "disks" | "command">;

/** Path of the initramfs; throws ConfigError for a command that nothing could run. */
export function chooseInitrd({ initrd, noInitrd, disks, command }: Options): string | undefined {
  if (initrd !== undefined) return initrd;
  if (noInitrd) {
    if (command.length === 0) return undefined;
    throw new ConfigError(["A command needs an initramfs with vmlet's init, and --no-initrd leaves it out"]);
  }
  if (!disks.some(({ isRoot }) => isRoot === true)) return defaultInitrd();
  return command.length > 0 ? tinyInitrd() : undefined;
}

/** Has vmlet's init change into the root disk before it runs the command. */
export function changeRootArguments({ initrd, disks, command }: Options): string[] {
  const index = disks.findIndex(({ isRoot }) => isRoot === true);
  return index < 0 || initrd !== undefined || command.length === 0 ? [] : [`vmlet.root=/dev/${diskName(index)}`];
}
