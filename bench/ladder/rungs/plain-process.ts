// The floor: fork and exec of the program, and what the harness itself costs.
import { join } from "node:path";
import { release } from "node:os";
import { CONTAINER_TIMEOUT_MS } from "../limits.js";
import type { Rung } from "../rung.js";

export const plainProcess: Rung = {
  name: "process",
  adds: "nothing: a process of the host",
  family: "process",
  limits: "group",
  network: "host",
  timeoutMs: CONTAINER_TIMEOUT_MS,
  detect: () => ({ version: `Linux ${release()}` }),
  open: (workspace) => ({
    command: ({ program }) => [join(workspace.root, program[0] ?? ""), ...program.slice(1)],
  }),
};
