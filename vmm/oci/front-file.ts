// What the runtime's front (vmm/oci/front/) may do of a container's commands without Node: a file of lines in its folder, which
// `create` writes last. A container without it is as good, and slower.
import { hasHooks } from "./hooks.js";
import type { Container, ContainerRecord } from "./state.js";

/** front/container.h takes no longer ones, and no more groups. */
const MAX_BYTES = 16_000;
const MAX_GROUPS = 16;

/** Undefined for what the front could not read. */
export function frontText({ monitor, hooks, role, cgroups }: ContainerRecord): string | undefined {
  const groups = Object.values(cgroups);
  if (monitor === undefined || groups.length > MAX_GROUPS || groups.some((path) => path.includes("\n")))
    return undefined;
  const { pid, startTicks, boot } = monitor;
  const lines = [
    `monitor ${String(pid)} ${String(startTicks)} ${boot}`,
    ...(hasHooks(hooks, ["startContainer", "poststart"]) ? [] : ["start"]),
    // Those of a pod have a VM to leave, or one that others are in.
    ...(hasHooks(hooks, ["poststop"]) || role.kind !== "alone" ? [] : ["delete"]),
    ...groups.map((path) => `group ${path}`),
  ];
  const text = `${lines.join("\n")}\n`;
  return Buffer.byteLength(text) > MAX_BYTES ? undefined : text;
}

export function writeFrontFile(container: Container, record: ContainerRecord): void {
  const text = frontText(record);
  if (text !== undefined) container.writeFront(text);
}
