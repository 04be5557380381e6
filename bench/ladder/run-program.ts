// Programs of the host that a rung needs besides the launcher: engines' clients, tar, cpio.
import { spawnSync } from "node:child_process";
import { timeLimit } from "../../vmm/host/time-limit.js";

const LIMIT_MS = 60_000;

/** Standard output. Throws with the program's standard error. */
export function runProgram(
  file: string,
  argv: readonly string[],
  {
    limitMs = LIMIT_MS,
    ...options
  }: { readonly cwd?: string; readonly input?: Uint8Array; readonly limitMs?: number } = {},
): string {
  const { status, stdout, stderr, error } = spawnSync(file, argv, {
    encoding: "utf8",
    timeout: timeLimit(file, limitMs),
    maxBuffer: 2 ** 28,
    ...options,
  });
  if (status === 0) return stdout;
  const words = stderr.trim().split("\n").at(-1) ?? "";
  throw new Error(`${file} ${argv.slice(0, 3).join(" ")}: ${error?.message ?? (words || `status ${String(status)}`)}`);
}

/** For things that may already be gone: true if the program succeeded. */
export function tryProgram(file: string, argv: readonly string[]): boolean {
  return spawnSync(file, argv, { stdio: "ignore", timeout: timeLimit(file, LIMIT_MS) }).status === 0;
}
