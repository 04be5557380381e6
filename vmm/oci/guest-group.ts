// The control group in the guest that counts a container's processes, with the limits of it that are not the VM's. Linux:
// admin-guide/cgroup-v2.rst.
import type { Agent } from "../agent/agent.js";
import { steps } from "../agent/container-request.js";
import { DEFAULT_PERIOD_US } from "./cgroup-limits.js";
import type { PodRole } from "./pod.js";
import type { OciSpec } from "./runtime-spec.js";

const TOP = "/sys/fs/cgroup";
const OWN_GROUP = "container";
/** Its limit of tasks, in a guest that has one. */
export const TASK_LIMIT_IN_GUEST = `${TOP}/${OWN_GROUP}/pids.max`;

function memberGroup(id: string): string {
  return `pod-${id.replaceAll("+", "_")}`;
}

/**
 * Made only where there is something to limit: on a host that emulates the guest's kernel it takes its time. Memory and
 * processors of a container alone are the VM's.
 */
export function groupOf({ linux }: OciSpec, { kind }: PodRole, id: string): readonly string[] {
  const { memory, cpu, pids } = linux?.resources ?? {};
  const isMember = kind === "container";
  const limits = [
    ["pids.max", pids?.limit ?? 0, ""],
    ["memory.max", isMember ? (memory?.limit ?? 0) : 0, ""],
    [
      "cpu.max",
      isMember ? (cpu?.quota ?? 0) : 0,
      ` ${String((cpu?.period ?? 0) > 0 ? cpu?.period : DEFAULT_PERIOD_US)}`,
    ],
  ] as const;
  const held = limits.filter(([, value]) => value > 0);
  if (held.length === 0) return [];
  const name = isMember ? memberGroup(id) : OWN_GROUP;
  return [
    ...steps.cgroup(name),
    ...held.flatMap(([file, value, more]) => steps.cgroupLimit(file, `${String(value)}${more}`)),
  ];
}

/** Whether the guest's kernel has killed in the group of a pod's container for want of memory. Rejects with AgentError if the guest has gone. */
export async function hasKilledInGroup({ files }: Agent, id: string): Promise<boolean> {
  const events = await files.readText(`${TOP}/${memberGroup(id)}/memory.events`);
  return Number(/^oom_kill (\d+)$/m.exec(events)?.[1] ?? 0) > 0;
}

/** Of a pod's container that has ended; one that has none is none. Rejects with AgentError if the guest has gone. */
export async function removeGroup({ files }: Agent, id: string): Promise<void> {
  await files.remove(`${TOP}/${memberGroup(id)}`, { force: true });
}
