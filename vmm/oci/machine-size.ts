// How large a container's VM, or a pod's, is: its memory is the limit, or what an annotation says; its processors likewise.
import { availableParallelism } from "node:os";
import {
  DEFAULT_CPUS,
  DEFAULT_RUN_MEMORY_MIB,
  MAX_CPUS,
  MAX_MEMORY_MIB,
  MIN_RUN_MEMORY_MIB,
} from "../config/defaults.js";
import { ConfigError } from "../errors.js";
import { DEFAULT_PERIOD_US } from "./cgroup-limits.js";
import { GUEST_OWN_MIB, podResources, podSize } from "./pod-size.js";
import type { PodRole } from "./pod.js";
import type { OciResources, OciSpec } from "./runtime-spec.js";

export const MEMORY_ANNOTATION = "io.vmlet.memory-mib";
export const CPUS_ANNOTATION = "io.vmlet.cpus";
const MIB = 1024 * 1024;

export interface MachineSize {
  readonly memoryMib: number;
  readonly cpus: number;
  /** For the control group, the guest's part of it; 0: none. */
  readonly limitBytes: number;
  /** Of the control group on the host, beside that. */
  readonly resources: OciResources;
  readonly warnings: readonly string[];
}

/** Throws ConfigError for an annotation that is no such number. */
export function machineSize({ annotations = {}, linux }: OciSpec, role: PodRole = { kind: "alone" }): MachineSize {
  // Its limits are the guest's to keep; what stands for it on the host has none.
  if (role.kind === "container") return { memoryMib: 0, cpus: 0, limitBytes: 0, resources: {}, warnings: [] };
  const pod = role.kind === "sandbox" ? podSize(annotations) : undefined;
  const own = pod === undefined || pod.memoryBytes === 0 ? 0 : GUEST_OWN_MIB * MIB;
  const limit = pod === undefined ? Math.max(0, linux?.resources?.memory?.limit ?? 0) : pod.memoryBytes + own;
  const most = Math.min(MAX_CPUS, availableParallelism());
  const cpus = annotated(annotations[CPUS_ANNOTATION], CPUS_ANNOTATION, 1, most);
  const memory = annotated(annotations[MEMORY_ANNOTATION], MEMORY_ANNOTATION, MIN_RUN_MEMORY_MIB, MAX_MEMORY_MIB);
  const wanted = limit === 0 ? DEFAULT_RUN_MEMORY_MIB : Math.min(MAX_MEMORY_MIB, Math.floor(limit / MIB));
  const memoryMib = memory ?? Math.max(MIN_RUN_MEMORY_MIB, wanted);
  return {
    memoryMib,
    cpus: cpus ?? cpusOf((pod ?? linux?.resources)?.cpu),
    resources: pod === undefined ? (linux?.resources ?? {}) : podResources(pod),
    limitBytes: limit === 0 ? 0 : Math.max(limit, memoryMib * MIB),
    warnings:
      wanted < MIN_RUN_MEMORY_MIB && memory === undefined
        ? [
            `linux.resources.memory.limit of ${String(limit)} bytes is less than a VM needs: it has ${String(memoryMib)} MiB`,
          ]
        : [],
  };
}

/** As many as a quota can use; without one, one. */
function cpusOf({ quota = 0, period = 0 }: { readonly quota?: number; readonly period?: number } = {}): number {
  if (quota <= 0) return DEFAULT_CPUS;
  const wanted = Math.ceil(quota / (period > 0 ? period : DEFAULT_PERIOD_US));
  return Math.max(1, Math.min(wanted, MAX_CPUS, availableParallelism()));
}

/**
 * Of those, how many the VM gets: one where its kernel is emulated, which takes half a minute to bring up a second, unless an
 * annotation asks for more.
 */
export function processorsOf(
  cpus: number,
  { annotations = {} }: Pick<OciSpec, "annotations">,
  isEmulated: boolean,
): number {
  return isEmulated && annotations[CPUS_ANNOTATION] === undefined ? DEFAULT_CPUS : cpus;
}

function annotated(value: string | undefined, name: string, minimum: number, maximum: number): number | undefined {
  if (value === undefined) return undefined;
  const number = Number(value);
  if (/^\d+$/.test(value) && number >= minimum && number <= maximum) return number;
  throw new ConfigError([
    `annotations.${name}: ${JSON.stringify(value)} is not a number from ${String(minimum)} to ${String(maximum)}`,
  ]);
}
