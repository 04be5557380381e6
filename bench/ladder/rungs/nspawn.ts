// systemd-nspawn, without systemd-machined: it need not run for this.
import { existsSync, rmdirSync } from "node:fs";
import { detectRootProgram, program as hostProgram } from "../detect.js";
import { CONTAINER_TIMEOUT_MS } from "../limits.js";
import type { Rung } from "../rung.js";

const PROPAGATE = "/run/systemd/nspawn/propagate";

export const nspawn: Rung = {
  name: "nspawn",
  adds: "an init as PID 1, a system-call filter",
  family: "runtime",
  limits: "group",
  network: "veth",
  debianPackage: "systemd-container",
  timeoutMs: CONTAINER_TIMEOUT_MS,
  detect: () => detectRootProgram("systemd-nspawn", "systemd-container"),
  open: (workspace) => {
    const flags = ["--quiet", "--register=no", "--keep-unit", "--as-pid2", "--pipe"];
    return {
      // Otherwise only one instance at a time may use the directory.
      environment: { SYSTEMD_NSPAWN_LOCK: "0" },
      command: ({ name, program, network }) => [
        hostProgram("systemd-nspawn"),
        ...flags,
        network?.kind === "veth" ? `--network-namespace-path=${network.namespace}` : "--private-network",
        `--machine=${name}`,
        `--directory=${workspace.root}`,
        ...program,
      ],
      remove: (names) => {
        // It leaves these where /run is not a tmpfs.
        for (const folder of names.map((name) => `${PROPAGATE}/${name}`)) if (existsSync(folder)) rmdirSync(folder);
      },
    };
  },
};
