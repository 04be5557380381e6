// A pseudo-terminal of the host: whoever has the master sees a terminal at the other end, which passes every byte as it is.
// ptmx(4), ioctl_tty(2).
import { constants, openSync } from "node:fs";
import { closeDescriptor } from "./descriptors.js";
import { systemCallError } from "./errno.js";
import { lazy } from "./koffi.js";
import { makeRaw } from "./terminal.js";

const nativeIoctl = lazy("ioctl", "int", ["int", "ulong", "void *"]);
const nativeIoctlNumber = lazy("ioctl", "int", ["int", "ulong", "int64_t"]);
const TIOCSPTLCK = 0x4004_5431;
const TIOCGPTPEER = 0x5441;
const TIOCSCTTY = 0x540e;
const TIOCSWINSZ = 0x5414;

export interface PseudoTerminal {
  readonly master: number;
  readonly slave: number;
}

/** Throws SystemCallError; the caller closes both. */
export function openPseudoTerminal(): PseudoTerminal {
  const master = openSync("/dev/ptmx", constants.O_RDWR | constants.O_NOCTTY);
  try {
    // SAFETY: one int, read during the call only.
    if (nativeIoctl(master, TIOCSPTLCK, new Int32Array(1)) < 0) throw systemCallError("TIOCSPTLCK");
    // Not by its name: what is at /dev/pts here may belong to others.
    const slave = nativeIoctlNumber(master, TIOCGPTPEER, constants.O_RDWR | constants.O_NOCTTY);
    if (slave < 0) throw systemCallError("TIOCGPTPEER");
    makeRaw(slave);
    return { master, slave };
  } catch (error) {
    closeDescriptor(master);
    throw error;
  }
}

/** The terminal becomes that of this process's session, whose leader it is: SIGWINCH and SIGHUP come from there on. */
export function takeTerminal(fd: number): void {
  if (nativeIoctlNumber(fd, TIOCSCTTY, 0) < 0) throw systemCallError("TIOCSCTTY");
}

export function setTerminalSize(fd: number, rows: number, columns: number): void {
  // SAFETY: the size of struct winsize, read during the call only.
  if (nativeIoctl(fd, TIOCSWINSZ, new Uint16Array([rows, columns, 0, 0])) < 0) throw systemCallError("TIOCSWINSZ");
}
