// A control group made, filled and removed for each start, as a shell does it.
import { join } from "node:path";
import { cgroupLayout, limitedGroup, removeGroupTree, type GroupFolder } from "../cgroup.js";
import { isRoot, program as hostProgram } from "../detect.js";
import { CONTAINER_TIMEOUT_MS } from "../limits.js";
import type { Rung } from "../rung.js";

function script(group: readonly GroupFolder[]): string {
  const lines = group.flatMap(({ folder, files }) => [
    `mkdir '${folder}'`,
    ...files.map(([file, value]) => `echo '${value}' >'${join(folder, file)}'`),
    `echo $$ >'${join(folder, "cgroup.procs")}'`,
  ]);
  return ["set -e", ...lines, 'exec "$@"'].join("\n");
}

export const cgroupLimits: Rung = {
  name: "cgroup",
  adds: "limits of memory and CPU time, in the same root directory",
  family: "namespaces",
  limits: "own",
  network: "host",
  timeoutMs: CONTAINER_TIMEOUT_MS,
  detect: () => {
    const { kind } = cgroupLayout();
    if (kind === "none") return { missing: "no control groups are mounted" };
    return isRoot() ? { version: `cgroups ${kind}` } : { missing: "needs root" };
  },
  open: (workspace) => {
    const groupOf = (name: string): GroupFolder[] => limitedGroup(workspace.cgroups, `${workspace.run}/${name}`);
    return {
      // The number's place may stand once in an argument: the name arrives as one of its own.
      command: ({ name, program }) => {
        const text = script(groupOf("$name")).replaceAll("'", '"').replace("set -e", "set -e; name=$1; shift");
        return [hostProgram("sh"), "-c", text, "sh", name, hostProgram("chroot"), workspace.root, ...program];
      },
      remove: (names) => {
        for (const { folder } of names.flatMap(groupOf)) removeGroupTree(folder);
      },
    };
  },
};
