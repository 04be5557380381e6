// From a process of config.json, or of `exec`, to what the agent is asked for.
import type { ContainerRequest } from "../agent/container-request.js";
import type { CommandOptions, LimitName } from "../agent/exec-request.js";
import { capabilitySets } from "./capabilities.js";
import { rlimitValue } from "./read-config.js";
import type { OciProcess } from "./runtime-spec.js";

export interface ProcessSurroundings {
  /** The steps that make the container; none for a process that joins one. */
  readonly steps: readonly string[];
  /** Namespaces that are its own. */
  readonly made?: number;
  /** Whose namespaces it enters, and which. */
  readonly join?: number;
  readonly joined?: number;
  /** The guest ends with it. */
  readonly endsGuest?: boolean;
  /** Its working directory is made if it is not there; default: of one that joins nobody. */
  readonly makeCwd?: boolean;
  /** Of its terminal, where it has one. */
  readonly size: { readonly rows: number; readonly columns: number } | undefined;
  /** Nothing can come for it. */
  readonly noInput: boolean;
}

export function processOptions(
  process: OciProcess,
  { steps, made, join, joined, endsGuest, makeCwd = join === undefined, size, noInput }: ProcessSurroundings,
): CommandOptions {
  const { user, capabilities, oomScoreAdj, noNewPrivileges } = process;
  const container: ContainerRequest = {
    steps,
    made,
    join,
    joined,
    noNewPrivileges,
    oomScore: oomScoreAdj,
    umask: user.umask,
    capabilities: capabilities === undefined ? undefined : capabilitySets(capabilities),
    endsGuest,
  };
  const limits = (process.rlimits ?? []).map(({ type, soft, hard }) => [
    type.replace(/^RLIMIT_/, "").toLowerCase() as LimitName,
    { soft: rlimitValue(soft), hard: rlimitValue(hard) },
  ]);
  return {
    env: process.env ?? [],
    cleanEnv: true,
    cwd: process.cwd,
    makeCwd,
    user: `${String(user.uid)}:${String(user.gid)}`,
    groups: user.additionalGids ?? [],
    limits: Object.fromEntries(limits) as NonNullable<CommandOptions["limits"]>,
    ...(process.terminal === true ? { terminal: size ?? true } : { noInput }),
    container,
  };
}
