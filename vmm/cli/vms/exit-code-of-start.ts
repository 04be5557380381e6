// What `vmlet run` exits with when its program did not begin.
import type { ExecError } from "../../errors.js";

const EXIT_OWN_FAILURE = 125;

/** The program's fault is a shell's 126 or 127. A user that the image does not have is none, as Docker has it. */
export function exitCodeOfStart({ exitCode, errnoName }: ExecError): number {
  return errnoName === "EINVAL" ? EXIT_OWN_FAILURE : exitCode;
}
