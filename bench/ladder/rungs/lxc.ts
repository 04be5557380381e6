// LXC with Debian's own defaults for all containers: capabilities, devices, system-call filter.
import { existsSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { detectProgram, program as hostProgram } from "../detect.js";
import { CONTAINER_TIMEOUT_MS, CPUS, MEMORY_MIB, type Rung } from "../rung.js";
import { tryProgram } from "../run-program.js";
import type { Site } from "../site.js";

const COMMON = "/usr/share/lxc/config/common.conf";

function config(site: Site): string {
  const bytes = String(MEMORY_MIB * 2 ** 20);
  const quota = String(CPUS * 100_000);
  const limits =
    site.cgroups.kind === "v2"
      ? [`lxc.cgroup2.memory.max = ${bytes}`, `lxc.cgroup2.cpu.max = ${quota} 100000`]
      : [`lxc.cgroup.memory.limit_in_bytes = ${bytes}`, `lxc.cgroup.cpu.cfs_quota_us = ${quota}`];
  const common = existsSync(COMMON) ? [`lxc.include = ${COMMON}`] : [];
  return [...common, `lxc.rootfs.path = dir:${site.root}`, "lxc.net.0.type = empty", ...limits, ""].join("\n");
}

export const lxc: Rung = {
  name: "lxc",
  adds: "limits, a system-call filter, a monitor process",
  family: "runtime",
  limits: "own",
  debianPackage: "lxc",
  timeoutMs: CONTAINER_TIMEOUT_MS,
  detect: () => detectProgram("lxc-execute", "lxc"),
  open: (site) => {
    const path = join(site.folder, "lxc");
    const file = join(path, "ladder.conf");
    mkdirSync(path);
    writeFileSync(file, config(site));
    return {
      command: ({ name, program }) => [
        hostProgram("lxc-execute"),
        ...["-n", name, "-P", path, "-f", file, `--define=lxc.uts.name=${name}`],
        ...[`--define=lxc.cgroup.dir=${site.run}/${name}`, "--", ...program],
      ],
      remove: (name) => {
        if (existsSync(join(path, name))) tryProgram(hostProgram("lxc-stop"), ["-k", "-n", name, "-P", path]);
      },
      close: () => {
        // Its locks of containers lie by their path.
        rmSync(join("/run/lxc/lock", path), { recursive: true, force: true });
      },
    };
  },
};
