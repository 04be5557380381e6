// The kernel command line: checked, then NUL-terminated in guest memory.
import type { GuestMemory } from "../../devices/contracts.js";
import { ConfigError } from "../errors.js";
import { CMDLINE_CAPACITY, CMDLINE_GPA } from "../memory/layout.js";

/** COMMAND_LINE_SIZE of x86 Linux, its NUL included: the limit for an ELF kernel, which names none itself. */
export const COMMAND_LINE_SIZE = 2048;

/** Throws ConfigError for a line that the kernel would cut off or misread. `maxLength` excludes the NUL. */
export function checkCmdline(cmdline: string, maxLength: number = COMMAND_LINE_SIZE - 1): Uint8Array {
  const bytes = new TextEncoder().encode(cmdline);
  const limit = Math.min(maxLength, CMDLINE_CAPACITY - 1);
  if (bytes.length > limit) {
    const command = /(?:^| )(vmlet\.exec=\S*)/.exec(cmdline)?.[1]?.length ?? 0;
    const share =
      command === 0 ? "" : `; the command of "--" takes ${String(command)} of them: a script in a file takes fewer`;
    throw new ConfigError([
      `The kernel command line has ${String(bytes.length)} bytes, the limit is ${String(limit)}${share}`,
    ]);
  }
  const bad = bytes.findIndex((byte) => byte < 0x20 || byte === 0x7f);
  if (bad >= 0) {
    const code = (bytes[bad] ?? 0).toString(16).padStart(2, "0");
    throw new ConfigError([`The kernel command line has the control character 0x${code} at byte ${String(bad)}`]);
  }
  return bytes;
}

export function writeCmdline(memory: GuestMemory, bytes: Uint8Array): void {
  memory.slice(CMDLINE_GPA, bytes.length).set(bytes);
  memory.writeU8(CMDLINE_GPA + bytes.length, 0);
}
