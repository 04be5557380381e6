// Whether somebody sits at this program, and what a guest runs if nobody says.
import { isTerminal } from "../sys/files.js";

const STDIN = 0;
const STDOUT = 1;

/** Somebody sits there: the guest's end is a terminal, too. */
export function isInteractive(): boolean {
  return isTerminal(STDIN) && isTerminal(STDOUT);
}

/** What a guest without a command and a terminal runs: it describes itself. */
export const SELF_DESCRIPTION = ["sh", "-c", "uname -a; cat /proc/cpuinfo /proc/meminfo"];
