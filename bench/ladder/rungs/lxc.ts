// LXC with Debian's own defaults for all containers: capabilities, devices, system-call filter.
import { existsSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { detectRootProgram, program as hostProgram } from "../detect.js";
import type { Joint } from "../network.js";
import { CONTAINER_TIMEOUT_MS, CPUS, MEMORY_MIB } from "../limits.js";
import type { Rung } from "../rung.js";
import { tryProgram } from "../run-program.js";
import type { Workspace } from "../workspace.js";

const COMMON = "/usr/share/lxc/config/common.conf";

function config(workspace: Workspace, network: readonly string[]): string {
  const bytes = String(MEMORY_MIB * 2 ** 20);
  const quota = String(CPUS * 100_000);
  const limits =
    workspace.cgroups.kind === "v2"
      ? [`lxc.cgroup2.memory.max = ${bytes}`, `lxc.cgroup2.cpu.max = ${quota} 100000`]
      : [`lxc.cgroup.memory.limit_in_bytes = ${bytes}`, `lxc.cgroup.cpu.cfs_quota_us = ${quota}`];
  const common = existsSync(COMMON) ? [`lxc.include = ${COMMON}`] : [];
  return [...common, `lxc.rootfs.path = dir:${workspace.root}`, ...network, ...limits, ""].join("\n");
}

export const lxc: Rung = {
  name: "lxc",
  adds: "limits, a system-call filter, a monitor process",
  family: "runtime",
  limits: "own",
  network: "veth",
  debianPackage: "lxc",
  timeoutMs: CONTAINER_TIMEOUT_MS,
  detect: () => detectRootProgram("lxc-execute", "lxc"),
  open: (workspace) => {
    const path = join(workspace.folder, "lxc");
    mkdirSync(path);
    const fileFor = (network: Joint | undefined): string => {
      const file = join(path, network === undefined ? "ladder.conf" : "ladder-network.conf");
      const lines =
        network?.kind === "veth" ? [`lxc.namespace.share.net = ${network.namespace}`] : ["lxc.net.0.type = empty"];
      writeFileSync(file, config(workspace, lines));
      return file;
    };
    return {
      command: ({ name, program, network }) => [
        hostProgram("lxc-execute"),
        ...["-n", name, "-P", path, "-f", fileFor(network), `--define=lxc.uts.name=${name}`],
        ...[`--define=lxc.cgroup.dir=${workspace.run}/${name}`, "--", ...program],
      ],
      remove: (names) => {
        for (const name of names) {
          if (existsSync(join(path, name))) tryProgram(hostProgram("lxc-stop"), ["-k", "-n", name, "-P", path]);
        }
      },
      close: () => {
        // It locks containers by their path.
        rmSync(join("/run/lxc/lock", path), { recursive: true, force: true });
      },
    };
  },
};
