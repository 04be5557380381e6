// How much a pod is to have in all, where the kubelet has said it: the sum of its containers' limits, in annotations of the sandbox.
import { show } from "../config/show.js";
import { ConfigError } from "../errors.js";
import type { OciResources } from "./runtime-spec.js";

/** What the guest's kernel and its agent need beside the containers' limits. */
export const GUEST_OWN_MIB = 64;
const CONTAINERD = "io.kubernetes.cri.sandbox-";
/** Newer and older versions of CRI-O. */
const CRI_O = ["pod-linux-resources.crio.io", "io.kubernetes.cri-o.PodLinuxResources"];

interface PodSize {
  /** 0: none is known, here and below. */
  readonly memoryBytes: number;
  readonly cpu: { readonly quota: number; readonly period: number; readonly shares: number };
}

/** Throws ConfigError for what is no number. */
export function podSize(annotations: Readonly<Record<string, string>> = {}): PodSize {
  const name = CRI_O.find((known) => annotations[known] !== undefined);
  const fields = name === undefined ? undefined : parsed(name, annotations[name] ?? "");
  const number = (inContainerd: string, inCriO: string): number => {
    const own = `${CONTAINERD}${inContainerd}`;
    const value = fields === undefined ? (annotations[own] ?? "0") : (fields[inCriO] ?? 0);
    const result = Number(value);
    if (Number.isSafeInteger(result) && value !== "") return Math.max(0, result);
    const where = fields === undefined ? own : `${name ?? ""}: ${inCriO}`;
    throw new ConfigError([`annotations.${where}: ${show(value)} is not a number`]);
  };
  return {
    memoryBytes: number("memory", "memory_limit_in_bytes"),
    cpu: {
      quota: number("cpu-quota", "cpu_quota"),
      period: number("cpu-period", "cpu_period"),
      shares: number("cpu-shares", "cpu_shares"),
    },
  };
}

function parsed(name: string, text: string): Readonly<Record<string, unknown>> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new ConfigError([`annotations.${name} is no JSON: ${(error as Error).message}`]);
  }
  // CRI-O's word for a pod of which the kubelet has said nothing.
  if (value === null) return {};
  if (typeof value === "object" && !Array.isArray(value)) return value as Record<string, unknown>;
  throw new ConfigError([`annotations.${name}: ${text} is not an object`]);
}

/** Of the sandbox's control group, where all of the VM counts: not those of its own small program, but the pod's. */
export function podResources({ cpu: { quota, period, shares } }: PodSize): OciResources {
  return {
    cpu: {
      ...(quota > 0 ? { quota, ...(period > 0 ? { period } : {}) } : {}),
      ...(shares > 0 ? { shares } : {}),
    },
  };
}
