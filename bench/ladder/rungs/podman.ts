// podman: an engine without a daemon. Its state lies in the workspace's folder.
import { join } from "node:path";
import { detectRootProgram, program as hostProgram } from "../detect.js";
import { findProgram } from "../../../vmm/host/programs.js";
import { CONTAINER_TIMEOUT_MS, CPUS, MEMORY_MIB } from "../limits.js";
import type { Rung } from "../rung.js";
import { tryProgram } from "../run-program.js";

/** Below any hard limit that a host sets, so that no right to raise one is needed. */
const ULIMITS = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"];

export const podman: Rung = {
  name: "podman",
  adds: "an engine: images, storage, a monitor a container",
  family: "engine",
  limits: "own",
  network: "veth",
  debianPackage: "podman",
  timeoutMs: CONTAINER_TIMEOUT_MS,
  detect: () => detectRootProgram("podman", "podman"),
  open: (workspace) => {
    const podmanPath = hostProgram("podman");
    const folder = join(workspace.folder, "podman");
    // crun refuses hosts that mount cgroups v1 and v2 side by side.
    const runtime = findProgram("crun") !== undefined && workspace.cgroups.kind === "v2" ? "crun" : "runc";
    const flags = [
      ...["--root", join(folder, "data"), "--runroot", join(folder, "run"), "--tmpdir", join(folder, "tmp")],
      ...["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--events-backend", "none"],
      ...["--runtime", runtime],
    ];
    const limits = [
      "--memory",
      `${String(MEMORY_MIB)}m`,
      "--cpus",
      String(CPUS),
      "--cgroup-parent",
      `/${workspace.run}`,
    ];
    return {
      command: ({ name, program, network }) => [
        podmanPath,
        ...flags,
        ...[
          "run",
          "--rm",
          "--name",
          name,
          "--network",
          network?.kind === "veth" ? `ns:${network.namespace}` : "none",
          ...limits,
          ...ULIMITS,
          "--rootfs",
          workspace.root,
        ],
        ...program,
      ],
      remove: (names) => {
        tryProgram(podmanPath, [...flags, "rm", "--force", "--time", "0", "--ignore", ...names]);
      },
    };
  },
};
