// What becomes of this process when the one that has started it ends: prctl(2), PR_SET_PDEATHSIG.
import { systemCallError } from "./errno.js";
import { lazy } from "./koffi.js";

const nativePrctl = lazy("prctl", "int", ["int", "ulong", "ulong", "ulong", "ulong"]);
const PR_SET_PDEATHSIG = 1;

/** It was to end with its parent until now, and goes on from here. Throws SystemCallError. */
export function outliveParent(): void {
  if (nativePrctl(PR_SET_PDEATHSIG, 0, 0, 0, 0) < 0) throw systemCallError("prctl");
}
