// 1979: another root directory, and nothing else.
import { detectRootProgram, program as hostProgram } from "../detect.js";
import { CONTAINER_TIMEOUT_MS } from "../limits.js";
import type { Rung } from "../rung.js";

export const chroot: Rung = {
  name: "chroot",
  adds: "a root directory of its own",
  family: "process",
  limits: "group",
  network: "host",
  debianPackage: "coreutils",
  timeoutMs: CONTAINER_TIMEOUT_MS,
  detect: () => detectRootProgram("chroot", "coreutils"),
  open: (workspace) => ({ command: ({ program }) => [hostProgram("chroot"), workspace.root, ...program] }),
};
